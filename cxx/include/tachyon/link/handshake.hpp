// Purpose: bring two processes together over a UNIX stream socket: find each other at a path, check who the other is and that
//   both mean the same thing, pass the segments' descriptors, and keep the socket as the notice of the peer's end.
// Threads: listen and connect may run in any number of threads at once, each for itself; they block, in slices of at most 50 ms
//   between which Interrupt is asked. A Connection belongs to one thread, except that hung_up() may be called by any.
// Lifetime: the Connection must live as long as one wants to know about the peer; the segments do not need it.
// Ordering: none; nothing here touches a ring.
//
//   connector                                    listener
//   connect(path)                                bind, listen, accept; uid of the connector checked
//   uid of the listener checked
//   Hello ───────────────────────────────────▶   checked
//   checked   ◀──────────────────────────────    Hello + descriptors
//   mapped and checked; 'R' ─────────────────▶   listen(): the path is unlinked, every other client dropped
//             ◀──────────────────────────────    'R'
//
// The connector binds an abstract address that begins with kConnectorName before it connects, so that a listener which one
// day speaks to older peers, who wait for the listener to begin, can tell from accept() alone whom it talks to.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tachyon/link/arrangement.hpp"
#include "tachyon/link/descriptor.hpp"
#include "tachyon/link/event_queue.hpp"
#include "tachyon/link/fork.hpp"
#include "tachyon/link/hello.hpp"
#include "tachyon/link/inbox.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/shm/segment.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// Of parcels, messages that do not fit the ring: what one side takes at a time, in bytes, unless told otherwise.
inline constexpr std::uint64_t kDefaultMaxLarge = std::uint64_t{1} << 30;

struct Peer;
struct Sender;

// The open socket to a peer and what is known about it.
class Connection {
  public:
    Connection() noexcept = default;
    Connection(Descriptor socket, Side side);  // reads the peer's credentials; SetupError (handshake)
    Connection(Connection&& other) noexcept;
    Connection& operator=(Connection&& other) noexcept;
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() = default;

    // The peer's process has ended, or it has hung up. Stays true. One system call, never blocks.
    [[nodiscard]] bool hung_up() const noexcept;

    // Wakes a peer that waits for many at once, by a byte on the socket; and takes such bytes out again, true if there were any.
    // Neither ever blocks.
    void knock() const noexcept;
    [[nodiscard]] bool hear() const noexcept;
    // Passes the descriptor of a parcel. 0, EAGAIN and its like: not now, or another errno. Never blocks.
    [[nodiscard]] int pass(int descriptor) const noexcept;
    // The oldest that the peer has passed; as Inbox.
    [[nodiscard]] Status first_passed(int& descriptor) const noexcept;
    void drop_first_passed() const noexcept;

    // One descriptor for loops that wait for other things too: readable once the peer has knocked, has hung up, or has ended, and
    // at the time that ring_by() was told. Made by the first call; gone with the socket. SetupError.
    int bell();
    // After bell(): at this time (now_ns() scale), or before.
    void ring_by(std::uint64_t time);
    // Silent until something happens again. False: the peer is gone, and it will never be silent again. knocked: it was the peer.
    bool hush(bool& knocked);
    [[nodiscard]] bool known_gone() const noexcept { return ended_; }

    // Of a socket whose two ends a third process made: what is known of that one gives way to the peer. SetupError (handshake).
    void recognize(const Sender& sender);

    // Tells the peer, and lets go. What happens to descriptors that a forked child inherited: nothing but close.
    void shut_down() noexcept;
    void abandon() noexcept;  // close without telling anybody; a forked child has done so before it knows

    [[nodiscard]] int socket() const noexcept { return socket_.get(); }
    [[nodiscard]] int process() const noexcept { return process_.get(); }  // pidfd, or -1
    [[nodiscard]] pid_t peer_pid() const noexcept { return peer_pid_; }    // 0: in a PID namespace that we cannot see
    [[nodiscard]] uid_t peer_uid() const noexcept { return peer_uid_; }
    [[nodiscard]] Side side() const noexcept { return side_; }
    [[nodiscard]] Barrier barrier() const noexcept { return barrier_; }
    void set_barrier(Barrier barrier) noexcept { barrier_ = barrier; }
    // Bytes of parcels that may be under way at a time, and so of one: the smaller of what both sides said. 0: none.
    [[nodiscard]] std::uint64_t max_large() const noexcept { return max_large_; }
    void set_max_large(std::uint64_t bytes) noexcept { max_large_ = bytes; }

  private:
    void know(Peer&& peer);

    Descriptor socket_;
    Descriptor process_;  // pidfd: a forked child of the peer may hold its socket open, but not its life
    Descriptor record_;   // where there is no pidfd: its entry in /proc
    bool ended_ = false;  // known for certain
    std::unique_ptr<EventQueue> bell_;
    std::uint64_t rings_at_ = kNever;
    pid_t peer_pid_ = 0;
    uid_t peer_uid_ = 0;
    Side side_ = Side::undecided;
    Barrier barrier_ = Barrier::locked;
    std::uint64_t max_large_ = 0;
    std::unique_ptr<Inbox> inbox_;
    ForkNode fork_node_{this, [](void* connection) noexcept { static_cast<Connection*>(connection)->abandon(); }};
};

struct Established {
    Connection connection;
    std::vector<Segment> segments;  // arranged by the listener, checked by the connector
    // What the peer said of their contents. Without `= {}` -Wextra complains of who leaves it out.
    std::string schema = {};  // NOLINT(readability-redundant-member-init)
};

struct ListenOptions {
    Kind kind = Kind::bus;
    std::vector<std::uint64_t> capacities;  // one per segment
    std::uint64_t deadline = kNever;        // of listen(); now_ns() scale
    mode_t mode = 0600;                     // of the socket file; with any group or other bit, other users are let in
    const Arrangement* arrangement = nullptr;  // of a kind that arrangement_of() does not know
    // What is said of the contents, up to what the arrangement allows.
    std::string schema = {};                     // NOLINT(readability-redundant-member-init): as above
    std::uint64_t max_large = kDefaultMaxLarge;  // 0: no parcels; else a power of two, 4 KiB … 4 GiB
};

struct ConnectOptions {
    Kind kind = Kind::bus;
    std::uint64_t deadline = 0;               // 0: try once. Later than now: wait for a listener to appear
    std::optional<uid_t> uid = std::nullopt;  // who the listener must be; default: our own effective user, or root
    std::uint64_t max_capacity = std::uint64_t{1} << 30;  // of each segment; a listener that offers more is refused
    const Arrangement* arrangement = nullptr;             // as above
    std::string schema = {};                              // NOLINT(readability-redundant-member-init): as above
    std::uint64_t max_large = kDefaultMaxLarge;           // as above
};

// One client, then no more: a pair that finds a Bus where an RpcBus listens, or the other way round, is told so on both sides.
// The socket file is gone when this returns or throws. options.deadline is when to give up. For many clients: Listener.
Established listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt = {});

Established connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt = {});

}  // namespace tachyon
