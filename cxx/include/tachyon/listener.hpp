// Purpose: many peers at one path: completes the handshake with one client after another.
// Threads: one at a time; accept blocks, in slices of at most 50 ms between which Interrupt is asked.
// Lifetime: the socket file goes with the Listener; whom it has let in stays. In a forked child: closed.
// Ordering: none; nothing here touches a ring.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tachyon/link/handshake.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

class Reception;

// Listens at a path and completes the handshake with one client after another. A client that says nothing, or the wrong thing,
// is dropped; all of them may take their time side by side.
//
// What is scarce is shared out by process, as the kernel tells it (those in PID namespaces that we cannot see count as one).
// There are 128 places in the handshake: when they are taken, the process that holds most of them loses one of those that have
// had 0.1 s, silent ones first; of silent ones no more than 64 are kept longer than that. Eight clients may hold memory that is
// not yet theirs, six of them of one process; when more ask, a process that has two more than theirs gives up one that has had
// 0.1 s, and 2 s per GiB. So a process that stalls as often and as long as it likes delays others by some tenths of a second,
// and by what reserving the memory of its clients takes. Eight processes that do can keep everybody out for as long as they go on.
class Listener {
  public:
    // Reserves the memory for the first client, then makes the socket file, which goes with the Listener. SetupError.
    Listener(const std::string& path, const ListenOptions& options, const Interrupt& interrupt = {});
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    ~Listener();

    // Waits for the next client to complete the handshake, until `deadline`. SetupError: timed_out, interrupted; handshake or
    // memory where there are no descriptors or no memory for one more client, after which one may go on. Memory that is being
    // reserved when the time is over is given back, and that client goes on waiting: who calls again and again with less time
    // than that takes lets nobody in.
    Established accept(std::uint64_t deadline, const Interrupt& interrupt = {});
    // Without waiting for anybody: what can be done now, up to one client's worth of memory, which at a GiB takes a second or so
    // and is not cut short. SetupError as accept.
    std::optional<Established> try_accept();
    // Readable, for poll and its like, when try_accept may get any further, be it because a client's time is over.
    [[nodiscard]] int descriptor() const noexcept;

    [[nodiscard]] bool forked() const noexcept;

  private:
    std::unique_ptr<Reception> reception_;
};

}  // namespace tachyon
