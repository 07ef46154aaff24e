// Purpose: who may use a handle now, and how close() gets in beside it. For hosts: languages with a lock of their own (Python's
//   GIL), whose code may call with it or without, and may close from any thread.
// Threads: a *locked* user holds the host's lock whenever it calls anything here; a *free* user holds none. One user is inside at
//   a time. That two locked users exclude each other is sure; a free one beside another user is usually found, not surely, for
//   it pays for no locked instruction. close() comes under the lock, from any thread, at any moment: that is sure.
// Lifetime: the gate outlives everybody who is inside.
// Ordering (argued in docs/memory-model.md; model: cxx/tests/models/gate.pml):
//   [gate]    user:  inside = me (release) ; light barrier ; closing (acquire)      and on its way out the same with 0
//             close: closing = how (release) ; heavy barrier ; inside (acquire)
//   [closed]  the one who closes: closed = 2 (release)   pairs with   closed (acquire) → the memory may go
//   [let-go]  guard or hold ended: guards (release)      pairs with   guards (acquire) → the memory may go
//
// Each side of [gate] stores one word and then loads the other's, so one of the two sees the other: close() finds a user inside,
// and leaves the closing to it, or the user finds that it is being closed, and goes away. Both may find that closing is theirs,
// hence the exchange in begin_closing(). The rare side pays for the barrier that both need.
//
// Once `closing` is set nobody gets in. Who finds that closing is its own task, on its way out or turned away at the door, looks
// behind itself once more: another user may have come in before that, and then it is that one's task.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "tachyon/error.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

class Gate {
  public:
    // What is lent (the ring itself, to code that inlines it) stays inside until it is taken back.
    enum class User : int { nobody = 0, locked = 1, free = 2, lent_producer = 3, lent_consumer = 4 };

    Gate() noexcept = default;
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;

    // ---- coming and going ----

    // False: somebody is inside, or free code holds something, or somebody without the lock may be closing it at this moment.
    // Once it is closed one may come in again, and find it closed.
    [[nodiscard]] bool enter_locked() noexcept {
        // Acquire: free users come and go without the lock, and what one did inside, held() too, is read once it has left.
        if (inside_.load(std::memory_order_acquire) != 0 || held() != 0 || (must_close() && !is_closed())) return false;
        inside_.store(value_of(User::locked), std::memory_order_relaxed);
        return true;
    }
    // Refused too while guards of locked users are open. must_close: refused, but who asked to close may have found us here, and
    // whoever is told so has to see to it: begin_closing_freely().
    enum class Entry : int { refused, inside, must_close };
    [[nodiscard]] Entry enter_free() noexcept {
        if (inside_.load(std::memory_order_acquire) != 0 || guards() != held()) [[unlikely]]
            return Entry::refused;
        inside_.store(value_of(User::free), std::memory_order_release);  // [gate]
        light_barrier();
        if (!must_close()) [[likely]]
            return Entry::inside;
        inside_.store(0, std::memory_order_release);
        return Entry::must_close;
    }
    // True: it was asked to close meanwhile, and whoever leaves has to see to it: begin_closing(), or begin_closing_freely().
    [[nodiscard]] bool leave() noexcept {
        inside_.store(0, std::memory_order_release);  // [gate]
        light_barrier();
        return must_close();
    }
    [[nodiscard]] bool must_close() const noexcept { return closing_.load(std::memory_order_acquire) != 0; }  // [gate]

    // ---- closing ----

    // Under the lock. The first call says how (not 0). Then begin_closing().
    void ask_to_close(int how) noexcept {
        if (!must_close()) closing_.store(how, std::memory_order_release);  // [gate]
    }
    [[nodiscard]] int how() const noexcept { return closing_.load(std::memory_order_acquire); }
    // For who has seen must_close(), and is not inside. True for exactly one of all callers, and then nobody is inside; it closes,
    // and says so by end_closing(). False: somebody else has done it, does it, or is inside and will see to it.
    [[nodiscard]] bool begin_closing() noexcept {
        if (closed_.load(std::memory_order_relaxed) != kOpen) return false;
        heavy_barrier();  // [gate] for who leaves too: `inside` of one who came in before `closing` was set may be on its way
        if (inside_.load(std::memory_order_acquire) != 0) return false;
        int open = kOpen;
        return closed_.compare_exchange_strong(open, kClosing, std::memory_order_acq_rel, std::memory_order_acquire);
    }
    // The same for who has no lock. Guards of locked users end without coming in, so it may not close beside one that is open.
    // None was while it was inside: another user has come, gone, and left it to whoever asked to close, or to the guard's end.
    [[nodiscard]] bool begin_closing_freely() noexcept { return guards() == held() && begin_closing(); }
    void end_closing() noexcept { closed_.store(kClosed, std::memory_order_release); }  // [closed]
    [[nodiscard]] bool is_closed() const noexcept {
        return closed_.load(std::memory_order_acquire) == kClosed;
    }  // [closed]
    // Closed, nobody is inside, and no guard is open: who has the lock may let the memory go.
    [[nodiscard]] bool is_over() const noexcept {
        return is_closed() && guards_.load(std::memory_order_acquire) == 0 &&  // [let-go]
               inside_.load(std::memory_order_acquire) == 0;
    }

    // ---- what is held ----

    // Open guards of locked users. What free code holds counts as guards too: locked users are refused, and the memory stays.
    void open_guard() noexcept { add(guards_, 1); }
    void end_guard() noexcept { add(guards_, -1); }
    void hold(int count) noexcept {
        add(guards_, count);
        add(held_, count);
    }
    void let_go(int count) noexcept {
        add(guards_, -count);
        add(held_, -count);
    }
    [[nodiscard]] int guards() const noexcept { return guards_.load(std::memory_order_relaxed); }
    [[nodiscard]] int held() const noexcept { return held_.load(std::memory_order_relaxed); }

    // ---- lending ----

    // By who is inside.
    void lend(User as) noexcept {
        lent_to_.store(this_thread(), std::memory_order_relaxed);
        inside_.store(value_of(as), std::memory_order_release);
    }
    [[nodiscard]] bool is_lent() const noexcept {
        return inside_.load(std::memory_order_acquire) >= value_of(User::lent_producer);
    }
    // Whoever has it may give it back at any moment, and close: nobody else can be let in meanwhile.
    [[nodiscard]] bool is_lent_here() const noexcept {
        return is_lent() && lent_to_.load(std::memory_order_relaxed) == this_thread();
    }
    [[nodiscard]] bool is_inside(User user) const noexcept {
        return inside_.load(std::memory_order_acquire) == value_of(user);
    }

  private:
    static constexpr int value_of(User user) noexcept { return static_cast<int>(user); }
    static std::uintptr_t this_thread() noexcept {
        static thread_local char here;
        return reinterpret_cast<std::uintptr_t>(&here);
    }
    // One writer at a time: whoever is inside, or holds the lock.
    static void add(std::atomic<int>& counter, int count) noexcept {
        counter.store(counter.load(std::memory_order_relaxed) + count, std::memory_order_release);  // [let-go]
    }

    // The one for the threads of this process: that of wait.hpp may pass over a core, which there costs time, and here memory.
    static inline const bool has_membarrier_ = register_own_membarrier();
    static void light_barrier() noexcept {
        compiler_barrier();
        if (!has_membarrier_) [[unlikely]]
            full_barrier();
    }
    // Should the kernel refuse it after all, a store has long left its core after a millisecond.
    static void heavy_barrier() noexcept {
        full_barrier();
        if (has_membarrier_ && !own_membarrier()) ::usleep(1000);
    }

    std::atomic<int> inside_{0};   // a User
    std::atomic<int> closing_{0};  // how it shall be closed; 0: it shall not
    static constexpr int kOpen = 0, kClosing = 1, kClosed = 2;
    std::atomic<int> closed_{kOpen};
    std::atomic<int> guards_{0};
    std::atomic<int> held_{0};
    std::atomic<std::uintptr_t> lent_to_{0};
};

}  // namespace tachyon
