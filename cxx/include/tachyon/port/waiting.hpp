// Purpose: how long a blocking call waits, what may end it before, and the one loop that all of them are.
// Threads: a Waiting is used by the call it is passed to, in the thread that makes it.
// Lifetime: what its hooks point to has to live until the call returns.
// Ordering: none.
#pragma once

#include <chrono>
#include <cstdint>

#include "tachyon/error.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// A lock that the caller holds and others may want while it sleeps or copies much: Python's GIL. Taking it again may end the
// thread by a forced unwinding (an interpreter that exits), so nothing that comes by here is noexcept.
struct Host {
    void (*unlock)(void* context) = nullptr;
    void (*lock)(void* context) = nullptr;
    void* context = nullptr;

    explicit operator bool() const noexcept { return unlock != nullptr; }

    template <class Call>
    [[nodiscard]] auto without(Call call) const {
        if (unlock != nullptr) unlock(context);
        const auto result = call();
        if (lock != nullptr) lock(context);
        return result;
    }
};

struct Waiting {
    std::uint64_t deadline = kNever;  // now_ns() scale; 0: do not wait
    Interrupt interrupt{};  // asked every 50 ms, and when a signal came. True: the call returns Status::interrupted
    Host host{};
    std::uint32_t looks = 0;           // at the ring before host is unlocked for the first time
    std::uint32_t unlocked_looks = 0;  // and then before the thread sleeps

    constexpr Waiting() noexcept = default;
    // As long as it takes, or for so long. Of any unit: a conversion to nanoseconds and one to this would be one too many.
    template <class Number, class Unit>
    Waiting(std::chrono::duration<Number, Unit> timeout) noexcept  // NOLINT(google-explicit-constructor): recv(50ms)
        : deadline(deadline_after(timeout)) {}
    static Waiting until(std::uint64_t deadline) noexcept {
        Waiting waiting;
        waiting.deadline = deadline;
        return waiting;
    }

  private:
    template <class Duration>
    static std::uint64_t deadline_after(Duration timeout) noexcept {
        using std::chrono::nanoseconds;
        if (timeout <= Duration::zero()) return 0;
        using Seconds = std::chrono::duration<double>;  // compared in these: hours::max() in nanoseconds is no number
        if (Seconds(timeout) >= Seconds(nanoseconds::max())) return kNever;
        return now_ns() + static_cast<std::uint64_t>(std::chrono::ceil<nanoseconds>(timeout).count());
    }
};

namespace detail {

// Signals are looked at when one came, and every slice, however short the waits between are.
inline bool gives_up(const Interrupt& interrupt, bool signalled) {
    if (interrupt.asked == nullptr) return false;
    static thread_local std::uint64_t last = 0;
    const std::uint64_t now = now_ns();
    if (!signalled && now - last < kSlice - kMillisecond) return false;  // a whole slice always counts
    last = now;
    return interrupt();
}

// Tries until there is an answer other than `nothing`, or the time is over. `wait` has:
//   attempt()          the try itself
//   look(n)            so many looks whether a try may help now; for the caller who holds a lock
//   prepare(until)     before each sleep, under the lock; returns how long to sleep at most
//   sleep(until)       one slice: ok, `nothing`, interrupted, or how it ended
//   unfinished()       the time is over, but the last try has not seen everything that was there
template <class Wait>
Status persist(const Waiting& waiting, Status nothing, Wait& wait) {
    Status status = wait.attempt();
    if (status != nothing || (waiting.deadline == 0 && !wait.unfinished())) return status;
    if (waiting.looks != 0 && wait.look(waiting.looks)) status = wait.attempt();
    if (status == nothing && waiting.unlocked_looks != 0) {
        (void)wait.prepare(waiting.deadline);
        (void)waiting.host.without([&] { return wait.look(waiting.unlocked_looks); });
        status = wait.attempt();
    }
    while (status == nothing) {
        const std::uint64_t until = wait.prepare(waiting.deadline);
        const Status slept = waiting.host.without([&] { return wait.sleep(until); });
        if (gives_up(waiting.interrupt, slept == Status::interrupted)) return Status::interrupted;
        if (slept != Status::ok && slept != nothing && slept != Status::interrupted) return slept;
        status = wait.attempt();
        if (status == nothing && now_ns() >= waiting.deadline && !wait.unfinished()) break;
    }
    return status;
}

}  // namespace detail
}  // namespace tachyon
