// Purpose: waiting for the other process: spin for a while, then park on a futex in the segment; and waking who parked.
// Threads: one waiter per parked word; anybody may wake. Lifetime: the parked word must stay mapped during a call.
// Ordering: sleeping and waking is a store-load race (Dekker's), which acquire and release do not settle.
//
//   sleeper                                   waker
//   parked = 1                                publish work              (release store, in ring.hpp)
//   full barrier   [park-barrier]             compiler barrier, or full [wake-barrier]
//   look again; if nothing:                   parked != 0 ?
//   FUTEX_WAIT(parked, 1)                     parked.exchange(0) == 1 → FUTEX_WAKE (2 → a byte on the socket)
//
// The cost belongs to the sleeper. If both processes are registered for membarrier(GLOBAL_EXPEDITED), [park-barrier] is that
// call, which makes every running thread of the peer pass a full barrier, and [wake-barrier] need only stop the compiler. If
// either is not, both sides use a locked read-modify-write. docs/memory-model.md argues both forms, and says what the kernel's
// own mistake about membarrier makes of the first: a wake that comes a millisecond late.
#pragma once

#include <time.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "tachyon/wait/futex.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tachyon {

// ---- time --------------------------------------------------------------------------------------------------------------

inline constexpr std::uint64_t kNever = UINT64_MAX;
inline constexpr std::uint64_t kMillisecond = 1'000'000;    // ns
inline constexpr std::uint64_t kSlice = 50 * kMillisecond;  // longest sleep before the peer and signals are looked at

inline std::uint64_t now_ns() noexcept {  // CLOCK_MONOTONIC
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(t.tv_nsec);
}

// A clock that stands still between the kernel's ticks, 1 … 10 ms, and so costs next to nothing. The scale is now_ns()'s, where
// there is such a clock.
inline std::uint64_t coarse_ns() noexcept {
#if defined(CLOCK_MONOTONIC_COARSE)
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(t.tv_nsec);
#else
    return now_ns() / kMillisecond * kMillisecond;
#endif
}

// A cheap clock of unknown rate, for "has about a tenth of a millisecond passed?". Never for anything a user sees.
#if defined(__x86_64__)
inline constexpr std::uint64_t kTicksBetweenChecks = 1u << 18;  // 52 … 262 µs for 5 … 1 GHz
inline std::uint64_t ticks() noexcept { return __rdtsc(); }
inline void cpu_relax() noexcept { _mm_pause(); }
// A locked RMW on the stack is a full barrier at a sixth of the price of mfence (2.5 ns against 16 ns).
inline void full_barrier() noexcept { asm volatile("lock; orl $0,-64(%%rsp)" ::: "memory", "cc"); }
#else
inline constexpr std::uint64_t kTicksBetweenChecks = 100'000;
inline std::uint64_t ticks() noexcept { return now_ns(); }
#if defined(__aarch64__)
inline void cpu_relax() noexcept { asm volatile("isb" ::: "memory"); }
#else
inline void cpu_relax() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }
#endif
inline void full_barrier() noexcept { std::atomic_thread_fence(std::memory_order_seq_cst); }
#endif
inline void compiler_barrier() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

// ---- barriers ------------------------------------------------------------------------------------------------------------

enum class Barrier : std::uint64_t { membarrier, locked };  // as wide as its neighbours in RingMemory

// [park-barrier]. False: the kernel refused it after all, and the caller must not sleep long.
inline bool park_barrier(Barrier barrier) noexcept {
    if (barrier == Barrier::locked) {
        full_barrier();
        return true;
    }
    compiler_barrier();
    const bool done = membarrier();
    compiler_barrier();
    return done;
}

// ---- waking --------------------------------------------------------------------------------------------------------------

// What a parked word says. A sleeper that waits for one ring sleeps on the word itself, one that waits for many (wait_set.hpp)
// asks for a byte on the ring's socket instead.
// A producer that waits for room dozes first, on the word: it looks again within kStoreDelay, and is woken before only when it is
// worth it. Else a consumer that is the slower one would wake it for every message.
inline constexpr std::uint32_t kAwake = 0, kParkedOnFutex = 1, kParkedOnSocket = 2, kDozing = 3;

// How to reach a peer that is parked on its socket. The ring does not know what is behind it.
struct Doorbell {
    void (*knock)(void* context) noexcept = nullptr;
    void* context = nullptr;
};

// All of them: there is one waiter, unless both processes wait for the first message of an undecided bus.
// The exchange comes first: a wake between the sleeper's look and its FUTEX_WAIT finds nobody, and must spoil the value.
[[gnu::cold, gnu::noinline]] inline bool wake(std::atomic<std::uint32_t>& parked,
                                              const Doorbell& doorbell = {}) noexcept {
    const std::uint32_t before = parked.exchange(kAwake, std::memory_order_acq_rel);
    if (before == kAwake) return false;
    if (before == kParkedOnSocket) {
        if (doorbell.knock != nullptr) doorbell.knock(doorbell.context);
    } else {
        futex_wake_all(parked);
    }
    return true;
}

// After publishing. Relaxed is enough for the look: [wake-barrier] orders it, and wake() reads again with an exchange.
inline bool wake_if_parked(std::atomic<std::uint32_t>& parked, Barrier barrier,
                           const Doorbell& doorbell = {}) noexcept {
    compiler_barrier();
    if (barrier == Barrier::locked) [[unlikely]]
        full_barrier();
    if (parked.load(std::memory_order_relaxed) == kAwake) [[likely]]
        return false;
    return wake(parked, doorbell);
}

// ---- parking -------------------------------------------------------------------------------------------------------------

// found_late: there was work already, and nobody had woken us for it yet.
enum class Parked : int { saw_work, woken, slice_over, interrupted, found_late };

// A store that a barrier ought to have pushed out has left its core by itself after this time.
inline constexpr std::uint64_t kStoreDelay = kMillisecond;

inline Parked sleep_on(std::atomic<std::uint32_t>& parked, std::uint32_t how, std::uint64_t ns) noexcept {
    const int error = futex_wait(parked, how, ns);
    return error == 0 ? Parked::woken : error == EINTR ? Parked::interrupted : Parked::slice_over;
}

// Sleeps for at most `slice` ns. Whatever it returns means: look again. saw_work never slept.
//
// Linux leaves a core out of membarrier(GLOBAL_EXPEDITED) once a thread of a registered process has exited on it, until another
// process runs there. So the look after that barrier is not taken for the last: a short sleep and one more come before the long.
template <class HasWork>
Parked park(std::atomic<std::uint32_t>& parked, Barrier barrier, std::uint64_t slice, HasWork has_work,
            std::uint32_t how = kParkedOnFutex) noexcept {
    parked.store(how, std::memory_order_relaxed);  // [park-barrier] orders it
    if (!park_barrier(barrier)) slice = std::min(slice, kStoreDelay);
    Parked result = Parked::saw_work;
    if (!has_work()) {
        const std::uint64_t first = barrier == Barrier::locked ? slice : std::min(slice, kStoreDelay);
        result = sleep_on(parked, how, first);
        if (result == Parked::slice_over && first < slice)
            result = has_work() ? Parked::found_late : sleep_on(parked, how, slice - first);
    }
    parked.store(kAwake, std::memory_order_relaxed);  // we look again in any case
    return result;
}

// As park. What lasts less than kStoreDelay costs whoever ends it no system call, unless that is worth it: see kDozing.
template <class HasWork>
Parked doze_and_park(std::atomic<std::uint32_t>& parked, Barrier barrier, std::uint64_t slice,
                     HasWork has_work) noexcept {
    const std::uint64_t doze = std::min(slice, kStoreDelay);
    const Parked dozed = park(parked, barrier, doze, has_work, kDozing);
    if (dozed != Parked::slice_over) return dozed;
    if (has_work()) return Parked::found_late;
    return doze < slice ? park(parked, barrier, slice - doze, has_work) : dozed;
}

// ---- spinning ------------------------------------------------------------------------------------------------------------

// True as soon as has_work() is; false after `duration` ns. The clock is read every 8th time: it costs as much as a look.
template <class HasWork>
bool spin(std::uint64_t duration, HasWork has_work) noexcept {
    const std::uint64_t until = now_ns() + duration;
    do {
        for (int i = 0; i < 8; ++i) {
            if (has_work()) return true;
            cpu_relax();
        }
    } while (now_ns() < until);
    return false;
}

// How long to spin before parking. A spin that pays doubles the budget, one that fails halves it; below 1 µs there is none. On one
// CPU, where spinning only keeps the peer from running, this settles at none (8 µs round trips, against 112 for a fixed 50 µs); on
// two it costs nothing. A busy moment can drive it to nothing on two as well: so a whole spin is tried every 2 ms, if somebody
// ended the last sleep. It has to be that long: the peer parks too by then, and answers only after the 20 to 40 µs of a wake-up.
// One thread waits; budget() may be asked by any.
class SpinBudget {
  public:
    [[nodiscard]] std::uint64_t next(std::uint64_t now) noexcept {  // now_ns()
        if (budget() >= kLeast) return budget();
        if (!woken_ || now - last_probe_ < kBetweenProbes) return 0;
        last_probe_ = now;
        return kMost;
    }
    void paid() noexcept { set(std::min(kMost, std::max(budget(), kLeast) * 2)); }
    void failed() noexcept { set(budget() / 2 >= kLeast ? budget() / 2 : 0); }
    // After a sleep. False: its slice ran out, so there is no traffic to spin for.
    void slept(bool woken) noexcept { woken_ = woken; }
    [[nodiscard]] bool traffic() const noexcept { return woken_; }
    [[nodiscard]] std::uint64_t budget() const noexcept { return budget_.load(std::memory_order_relaxed); }

  private:
    void set(std::uint64_t budget) noexcept { budget_.store(budget, std::memory_order_relaxed); }

    static constexpr std::uint64_t kMost = 50'000, kLeast = 1'000, kBetweenProbes = 2 * kMillisecond;  // ns
    std::atomic<std::uint64_t> budget_ = kMost;
    std::uint64_t last_probe_ = 0;
    bool woken_ = false;
};

// ---- interrupting -------------------------------------------------------------------------------------------------------

// Asked between slices of a blocking set-up call. True: give up with SetupFailure::interrupted.
struct Interrupt {
    bool (*asked)(void* context) = nullptr;
    void* context = nullptr;
    [[nodiscard]] bool operator()() const { return asked != nullptr && asked(context); }
};

}  // namespace tachyon
