// Purpose: bring two processes together over a UNIX stream socket: find each other at a path, check who the other is and that
//   both mean the same thing, pass the segments' descriptors, and keep the socket as the notice of the peer's end.
// Threads: listen, Listeners and connect may run in any number of threads at once, each for itself; they block, in slices of at most
//   50 ms between which Interrupt is asked. A Connection belongs to one thread, except that hung_up() may be called by any.
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

#include "tachyon/link/event_queue.hpp"
#include "tachyon/link/fork.hpp"
#include "tachyon/link/socket_file.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/shm/segment.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

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

    // Wakes a peer that waits for many at once, by a byte on the socket; and takes such bytes out again. Neither ever blocks.
    void ring() const noexcept;
    void hear() const noexcept;

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

  private:
    Descriptor socket_;
    Descriptor process_;  // pidfd: a forked child of the peer may hold its socket open, but not its life
    Descriptor record_;   // where there is no pidfd: its entry in /proc
    bool ended_ = false;  // known from the start
    pid_t peer_pid_ = 0;
    uid_t peer_uid_ = 0;
    Side side_ = Side::undecided;
    Barrier barrier_ = Barrier::locked;
    ForkNode fork_node_{this, [](void* connection) noexcept { static_cast<Connection*>(connection)->abandon(); }};
};

struct Established {
    Connection connection;
    std::vector<Segment> segments;
};

struct ListenOptions {
    Kind kind = Kind::bus;
    std::vector<std::uint64_t> capacities;  // one per segment
    std::uint64_t deadline = kNever;        // of listen(); now_ns() scale
    mode_t mode = 0600;                     // of the socket file; with any group or other bit, other users are let in
};

struct ConnectOptions {
    Kind kind = Kind::bus;
    std::size_t segments = 1;
    std::uint64_t deadline = 0;               // 0: try once. Later than now: wait for a listener to appear
    std::optional<uid_t> uid = std::nullopt;  // who the listener must be; default: our own effective user, or root
    std::uint64_t max_capacity = std::uint64_t{1} << 30;  // of each ring; a listener that offers more is refused
};

// Listens at a path and completes the handshake with one client after another. A client that says nothing, or the wrong thing,
// is dropped; all of them may take their time side by side. One thread at a time. In a forked child: closed.
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
    Listener(const std::string& path, ListenOptions options, const Interrupt& interrupt = {});
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
    [[nodiscard]] int descriptor() const noexcept { return events_.descriptor(); }

    [[nodiscard]] bool forked() const noexcept { return file_ && file_->forked(); }

  private:
    friend Established listen(const std::string&, const ListenOptions&, const Interrupt&);
    enum class Clients : bool { one, many };
    struct Client;
    Listener(std::string path, ListenOptions options, Clients clients, const Interrupt& interrupt);

    enum class Victims : bool { silent, any };

    [[nodiscard]] std::vector<Segment> make_segments(const Patience& patience) const;
    std::optional<Established> advance(const Patience& patience);
    void watch(int descriptor);
    void watch_file(bool wanted) noexcept;
    void expect_more() noexcept;
    void drop(const Client& client) noexcept;
    void drop_late() noexcept;
    [[nodiscard]] std::size_t places_of(pid_t process) const noexcept;
    [[nodiscard]] const Client* find_victim(Victims victims, std::uint64_t time) const noexcept;
    bool evict(Victims victims, std::uint64_t time) noexcept;
    void accept_all();
    bool step(Client& client);
    void greet(Client& client);
    [[nodiscard]] std::size_t offers_to(pid_t process) const noexcept;
    [[nodiscard]] Client* next_to_offer() const noexcept;
    [[nodiscard]] const Client* find_stalled(std::size_t offers) const noexcept;
    [[nodiscard]] bool make_room_for_offer(const Client& client) noexcept;
    void offer_next(const Patience& patience);
    void reject(const Client& client, Verdict verdict) const;
    Established finish(Client& client);
    [[nodiscard]] std::uint64_t next_deadline() const noexcept;

    const std::string path_;
    const ListenOptions options_;
    const bool once_;
    const bool membarrier_;
    std::vector<Segment> spare_;  // for the next client
    std::unique_ptr<SocketFile> file_;
    EventQueue events_;
    bool watching_file_ = false;
    bool offered_ = false;                          // in this round: there may be more to offer
    std::uint64_t now_ = 0;                         // when this round began
    std::vector<std::unique_ptr<Client>> clients_;  // oldest first
};

// One client, then no more: a pair that finds a Bus where an RpcBus listens, or the other way round, is told so on both sides.
// The socket file is gone when this returns or throws. options.deadline is when to give up.
Established listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt = {});

Established connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt = {});

}  // namespace tachyon
