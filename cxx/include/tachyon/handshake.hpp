// Purpose: bring two processes together over a UNIX stream socket: find each other at a path, check who the other is and that
//   both mean the same thing, pass the segments' descriptors, and keep the socket as the notice of the peer's end.
// Threads: listen and connect may run in any number of threads at once, each for itself; they block, in slices of at most
//   50 ms between which Interrupt is asked. A Connection belongs to one thread, except that hung_up() may be called by any.
// Lifetime: the Connection must live as long as one wants to know about the peer; the segments do not need it.
// Ordering: none; nothing here touches a ring.
//
//   connector                                    listener
//   connect(path)                                bind, listen, accept; uid of the connector checked
//   uid of the listener checked
//   Hello ───────────────────────────────────▶   checked
//   checked   ◀──────────────────────────────    Hello + descriptors
//   mapped and checked; 'R' ─────────────────▶   the path is unlinked, every other client dropped
//             ◀──────────────────────────────    'R'
//
// The connector binds an abstract address that begins with kConnectorName before it connects, so that a listener which one
// day speaks to older peers, who wait for the listener to begin, can tell from accept() alone whom it talks to.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tachyon/layout.hpp"
#include "tachyon/segment.hpp"
#include "tachyon/wait.hpp"

namespace tachyon {

inline constexpr std::string_view kConnectorName{"\0tachyon-1-", 11};

// The open socket to a peer and what is known about it.
class Connection {
  public:
    Connection() noexcept = default;
    Connection(Descriptor socket, Side side);  // reads the peer's credentials; SetupError (handshake)

    // The peer's process has ended, or it has hung up. Stays true. One system call, never blocks.
    [[nodiscard]] bool hung_up() const noexcept;

    // Tells the peer, and lets go. What happens to descriptors that a forked child inherited: nothing but close.
    void shut_down() noexcept;
    void abandon() noexcept;  // in a forked child: close without telling anybody

    [[nodiscard]] int socket() const noexcept { return socket_.get(); }
    [[nodiscard]] pid_t peer_pid() const noexcept { return peer_pid_; }  // 0: in a PID namespace that we cannot see
    [[nodiscard]] uid_t peer_uid() const noexcept { return peer_uid_; }
    [[nodiscard]] Side side() const noexcept { return side_; }
    [[nodiscard]] Barrier barrier() const noexcept { return barrier_; }
    void set_barrier(Barrier barrier) noexcept { barrier_ = barrier; }

  private:
    Descriptor socket_;
    Descriptor process_;  // pidfd: a forked child of the peer may hold its socket open, but not its life
    pid_t peer_pid_ = 0;
    uid_t peer_uid_ = 0;
    Side side_ = Side::undecided;
    Barrier barrier_ = Barrier::locked;
};

struct Established {
    Connection connection;
    std::vector<Segment> segments;
};

struct ListenOptions {
    Kind kind = Kind::bus;
    std::vector<std::uint64_t> capacities;  // one per segment
    std::uint64_t deadline = kNever;        // now_ns() scale
    mode_t mode = 0600;                     // of the socket file; with any group or other bit, other users are let in
};

struct ConnectOptions {
    Kind kind = Kind::bus;
    std::size_t segments = 1;
    std::uint64_t deadline = 0;  // 0: try once. Later than now: wait for a listener to appear
    std::optional<uid_t> uid;    // who the listener must be; default: our own effective user, or root
};

// Waits for one client that completes the handshake. A client that says nothing, or the wrong thing, is dropped and the next
// one served; all of them may take their time side by side. The socket file is gone when this returns or throws.
Established listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt = {});

Established connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt = {});

}  // namespace tachyon
