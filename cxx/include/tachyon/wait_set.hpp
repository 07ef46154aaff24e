// Purpose: one thread waits for many rings at once, and for descriptors.
// Threads: one at a time. Lifetime: a bus lives and a descriptor is valid until it is removed; a bus may be closed before, and is
//   ready then. In a forked child: without members that matter; what the child does to it does not reach the parent's.
// Ordering: as in wait.hpp, with a byte on the bus's socket in place of the futex: all words are set to kParkedOnSocket, one
//   [park-barrier] follows, then another look at every ring, and only then the sleep.
//
// Looking at a ring that nobody writes to costs a load from the cache, so all of them are looked at, in turn: whoever was
// served comes last. Between sleeps no peer needs a system call to be heard.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tachyon/bus.hpp"
#include "tachyon/error.hpp"
#include "tachyon/link/event_queue.hpp"
#include "tachyon/link/fork.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

class WaitSet {
  public:
    using Token = std::uint64_t;  // the user's own word for a member; all different

    WaitSet();  // SetupError: no free descriptor
    WaitSet(const WaitSet&) = delete;
    WaitSet& operator=(const WaitSet&) = delete;
    ~WaitSet();

    // Waits for a frame on `bus`, of which this side is the consumer. SetupError.
    void add(Token token, Bus& bus);
    // From now on waits for a frame on `bus`, or for room for `size` bytes. It has the same connection as the one added.
    void await_frame(Token token, Bus& bus) noexcept;
    void await_room(Token token, Bus& bus, std::uint64_t size) noexcept;
    // Waits until `descriptor` is readable. SetupError.
    void add_descriptor(Token token, int descriptor);
    void remove(Token token) noexcept;

    // ok: try what `token` waits for; it may have ended instead, and there may after all be nothing. empty: nothing within the
    // slice, or until `until`; interrupted: by a signal; forked.
    [[nodiscard]] Status wait(std::uint64_t until, Token& token) noexcept;
    // Without waiting: ok, empty or forked.
    [[nodiscard]] Status poll(Token& token) noexcept;

    [[nodiscard]] std::uint64_t parks() const noexcept { return parks_; }

  private:
    struct Member;

    [[nodiscard]] Member* find(Token token) noexcept;
    void watch(Member& member, int descriptor);
    [[nodiscard]] Member* next_ready() noexcept;
    [[nodiscard]] std::uint64_t park() noexcept;
    int look_at_descriptors(int timeout) noexcept;
    int look_at_each(int timeout) noexcept;
    void look_at_unwatched() noexcept;

    std::vector<std::unique_ptr<Member>> members_;
    std::size_t next_ = 0;  // whose turn it is
    EventQueue events_;
    SpinBudget budget_;
    std::uint64_t last_look_ = 0;            // at the descriptors; ticks()
    std::uint64_t last_look_unwatched_ = 0;  // now_ns()
    std::uint64_t parks_ = 0;
    // The kernel's list of what is watched is one for both processes.
    ForkNode fork_node_{this, [](void* set) noexcept { static_cast<WaitSet*>(set)->events_.disown(); }};
};

}  // namespace tachyon
