// Purpose: waits for the first of many descriptors to become readable, or for a time to come: epoll on Linux, kqueue on macOS.
// Threads: one at a time. Lifetime: a descriptor is removed before it is closed, because a forked child may hold it open.
//   In a forked child: to be disowned at once; what the child did to it would reach the parent's.
// Ordering: none.
#pragma once

#include <cstdint>
#include <span>

#include "tachyon/link/descriptor.hpp"

namespace tachyon {

class EventQueue {
  public:
    // SetupError (handshake): no free descriptor. `doing` completes "cannot …".
    explicit EventQueue(const char* doing);

    // Readable also means: at its end. wait() gives the tag back. 0, or an errno.
    [[nodiscard]] int add(int descriptor, void* tag) noexcept;
    void remove(int descriptor) noexcept;

    // From now on the queue is ready, with the tag null, from `deadline` on (now_ns() scale; kNever: no more). SetupError
    // (handshake): no free descriptor, at the first call only.
    void set_timer(std::uint64_t deadline);

    // The tags of what is ready now, or first becomes so: their number, 0 after `milliseconds`, or -1: errno is EINTR for a signal.
    int wait(std::span<void*> tags, int milliseconds) noexcept;

    // Readable when wait() would not have to wait. kqueue goes on saying so of what is over by now: who does not call wait()
    // calls forget_past() before each look at it.
    void forget_past() noexcept;
    [[nodiscard]] int descriptor() const noexcept { return queue_.get(); }
    explicit operator bool() const noexcept { return static_cast<bool>(queue_); }
    void disown() noexcept;  // in a forked child; then false, and of no more use

  private:
    Descriptor queue_;
    Descriptor timer_;  // Linux: of its own kind
    std::uint64_t timer_set_to_ = UINT64_MAX;
};

}  // namespace tachyon
