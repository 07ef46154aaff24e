#include "tachyon/handshake.hpp"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>

#include "tachyon/socket_file.hpp"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace tachyon {
namespace {

constexpr std::uint64_t kSecond = 1000 * kMillisecond;
constexpr std::uint64_t kPatience = 5 * kSecond;  // with a peer that is connected and silent
constexpr std::size_t kMostClients = 64;          // that may be in the handshake at once

// Mapping and populating a large segment takes the connector about this much longer.
std::uint64_t patience_for(const std::vector<std::uint64_t>& capacities) {
    std::uint64_t bytes = 0;
    for (const std::uint64_t capacity : capacities) bytes += capacity;
    return kPatience + (bytes >> 30) * 2 * kSecond;
}

// A reason to try again while there is time.
struct NotNow {
    int error_number;
    std::string what;
};

[[noreturn]] void throw_interrupted() { throw SetupError(SetupFailure::interrupted, EINTR, "interrupted"); }

int poll_timeout(std::uint64_t until) {
    const std::uint64_t now = now_ns();
    if (until <= now) return 0;
    return static_cast<int>((std::min(until - now, kSlice) + kMillisecond - 1) / kMillisecond);
}

// False once `deadline` has passed.
bool wait_for(int socket, short events, std::uint64_t deadline, const Interrupt& interrupt) {
    for (;;) {
        if (interrupt()) throw_interrupted();
        pollfd entry{socket, events, 0};
        if (::poll(&entry, 1, poll_timeout(deadline)) > 0) return true;
        if (now_ns() >= deadline) return false;
    }
}

void pause_for(std::uint64_t duration) {
    const timespec time{0, static_cast<long>(duration)};
    ::nanosleep(&time, nullptr);
}

const char* kind_name(std::uint16_t kind) {
    return kind == static_cast<std::uint16_t>(Kind::bus)   ? "Bus"
           : kind == static_cast<std::uint16_t>(Kind::rpc) ? "RpcBus"
                                                           : "bus of an unknown kind";
}

Hello make_hello(Kind kind, bool membarrier) {
    Hello hello{};
    std::memcpy(hello.magic, kHelloMagic, sizeof hello.magic);
    hello.byte_order = kByteOrder;
    hello.version = kProtocolVersion;
    hello.kind = static_cast<std::uint16_t>(kind);
    hello.layout_hash = layout_hash();
    hello.abilities = membarrier ? kAbilityMembarrier : 0;
    return hello;
}

bool is_ours(const Hello& hello) {
    return std::memcmp(hello.magic, kHelloMagic, sizeof hello.magic) == 0 && hello.byte_order == kByteOrder;
}

Verdict judge(const Hello& hello, Kind kind) {
    if (hello.version != kProtocolVersion) return Verdict::wrong_version;
    if (hello.layout_hash != layout_hash()) return Verdict::wrong_layout;
    if (hello.kind != static_cast<std::uint16_t>(kind)) return Verdict::wrong_kind;
    return Verdict::accepted;
}

Barrier agreed_barrier(bool ours, const Hello& theirs) {
    return ours && (theirs.abilities & kAbilityMembarrier) != 0 ? Barrier::membarrier : Barrier::locked;
}

// Reads one Hello, and the descriptors that come with it, in however many pieces it arrives.
class HelloReader {
  public:
    explicit HelloReader(std::size_t descriptors) : expected_(descriptors) {}

    enum class Progress { more, complete, failed };

    Progress advance(int socket) {
        while (got_ < sizeof hello_) {
            alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxSegments)> control;
            iovec part{reinterpret_cast<char*>(&hello_) + got_, sizeof hello_ - got_};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = control.data();
            message.msg_controllen = control.size();
            const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno == EAGAIN) return Progress::more;
            if (n > 0) take_descriptors(message);
            if (n <= 0) return Progress::failed;
            got_ += static_cast<std::size_t>(n);
            if (truncated_ || descriptors_.size() > expected_) return Progress::failed;
        }
        return Progress::complete;
    }

    [[nodiscard]] const Hello& hello() const { return hello_; }
    [[nodiscard]] std::vector<Descriptor>& descriptors() { return descriptors_; }
    [[nodiscard]] bool misbehaved() const {
        return descriptors_.size() > expected_ || (truncated_ && descriptors_.size() == expected_);
    }
    // What was passed had no free number to arrive at.
    [[nodiscard]] bool starved() const { return truncated_ && !misbehaved(); }

  private:
    void take_descriptors(msghdr& message) {
        truncated_ = truncated_ || (message.msg_flags & MSG_CTRUNC) != 0;
        for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
            if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
            const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (std::size_t i = 0; i < count; ++i) {
                int number = -1;
                std::memcpy(&number, CMSG_DATA(part) + i * sizeof number, sizeof number);
                descriptors_.emplace_back(number);
            }
        }
    }

    Hello hello_{};
    std::size_t got_ = 0;
    std::size_t expected_;
    bool truncated_ = false;
    std::vector<Descriptor> descriptors_;
};

// Fits into the empty buffer of a fresh socket, so it never waits. False: the peer is gone.
bool send_hello(int socket, const Hello& hello, const std::vector<Segment>& segments) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxSegments)> control{};
    iovec part{const_cast<Hello*>(&hello), sizeof hello};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!segments.empty()) {
        std::array<int, kMaxSegments> numbers{};
        const std::size_t count = std::min(segments.size(), kMaxSegments);
        for (std::size_t i = 0; i < count; ++i) numbers[i] = segments[i].descriptor();
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * count);
        std::memcpy(CMSG_DATA(rights), numbers.data(), sizeof(int) * count);
    }
    return ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(sizeof hello);
}

bool send_ready(int socket) { return ::send(socket, &kReady, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1; }

// ---- listener ------------------------------------------------------------------------------------------------------------

// One client on its way through the handshake.
struct Client {
    enum class State { greeting, greeted, offered };

    Client(Connection&& its_connection, std::uint64_t its_deadline)
        : connection(std::move(its_connection)), deadline(its_deadline) {}

    Connection connection;
    HelloReader reader{0};  // a client has no descriptors to pass
    std::uint64_t deadline;
    State state = State::greeting;
};

class Listener {
  public:
    Listener(const std::string& path, const ListenOptions& options, const Interrupt& interrupt)
        : path_(path), options_(options), interrupt_(interrupt) {
        make_address(path);  // a bad path before a large reservation
        make_segments();
        file_ = std::make_unique<SocketFile>(path, options.mode, interrupt);
    }

    Established run() {
        for (;;) {
            if (interrupt_()) throw_interrupted();
            drop_late();
            offer_next();
            wait();
            accept_all();
            // Backwards: a client that is dropped leaves the ones not yet looked at where they are.
            for (std::size_t i = clients_.size(); i-- > 0;) {
                if (step(*clients_[i])) return finish(i);
            }
            if (now_ns() >= options_.deadline) {
                throw SetupError(SetupFailure::timed_out, ETIMEDOUT,
                                 "nobody connected to " + path_ + " within the timeout");
            }
        }
    }

  private:
    void make_segments() {
        segments_.clear();
        for (const std::uint64_t capacity : options_.capacities) segments_.push_back(Segment::create(capacity));
    }

    void drop(Client& client) {
        // It may have kept the descriptors: the next one gets memory that nobody else has.
        const bool renew = client.state == Client::State::offered;
        std::erase_if(clients_, [&](const auto& each) { return each.get() == &client; });
        if (renew) make_segments();
    }

    void drop_late() {
        const std::uint64_t now = now_ns();
        for (std::size_t i = clients_.size(); i-- > 0;) {
            if (clients_[i]->deadline <= now) drop(*clients_[i]);
        }
    }

    [[nodiscard]] bool has_offered() const {
        return std::ranges::any_of(clients_, [](const auto& each) { return each->state == Client::State::offered; });
    }

    // The segments are offered to one client at a time.
    void offer_next() {
        while (!has_offered()) {
            const auto next =
                std::ranges::find_if(clients_, [](const auto& each) { return each->state == Client::State::greeted; });
            if (next == clients_.end()) return;
            Client& client = **next;
            Hello hello = make_hello(options_.kind, membarrier_);
            hello.segments = static_cast<std::uint32_t>(segments_.size());
            for (std::size_t i = 0; i < segments_.size(); ++i) hello.capacity[i] = segments_[i].capacity();
            client.state = Client::State::offered;
            client.deadline = now_ns() + patience_for(options_.capacities);
            client.connection.set_barrier(agreed_barrier(membarrier_, client.reader.hello()));
            if (!send_hello(client.connection.socket(), hello, segments_)) drop(client);
        }
    }

    void wait() {
        std::vector<pollfd> entries{{file_->descriptor(), POLLIN, 0}};
        std::uint64_t until = options_.deadline;
        for (const auto& client : clients_) {
            entries.push_back({client->connection.socket(), POLLIN, 0});
            until = std::min(until, client->deadline);
        }
        ::poll(entries.data(), entries.size(), poll_timeout(until));  // what is ready shows when it is tried
    }

    void accept_all() {
        for (;;) {
            Descriptor socket(::accept4(file_->descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (!socket) {
                if (errno == EINTR || errno == ECONNABORTED) continue;
                if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
                const int error_number = errno;
                // The kernel wants a free number before it looks whether anybody is there.
                pollfd entry{file_->descriptor(), POLLIN, 0};
                if (::poll(&entry, 1, 0) == 0) return;
                if (drop_oldest_silent()) continue;
                fail_handshake(error_number, std::string("cannot accept a client: ") + std::strerror(error_number) +
                                                 "; close some descriptors or raise `ulimit -n`");
            }
            if (clients_.size() >= kMostClients && !drop_oldest_silent()) return;
            std::unique_ptr<Client> client;
            try {
                client = std::make_unique<Client>(Connection(std::move(socket), Side::listener), now_ns() + kPatience);
            } catch (const SetupError&) {  // its own descriptor was the last one
                if (drop_oldest_silent()) continue;
                throw;
            }
            const uid_t peer = client->connection.peer_uid();
            const bool everybody = (options_.mode & 0077) != 0;
            if (peer != ::geteuid() && peer != 0 && !everybody) {
                reject(*client, Verdict::wrong_user);
                continue;
            }
            clients_.push_back(std::move(client));
        }
    }

    bool drop_oldest_silent() {
        const auto oldest =
            std::ranges::find_if(clients_, [](const auto& each) { return each->state == Client::State::greeting; });
        if (oldest == clients_.end()) return false;
        clients_.erase(oldest);
        return true;
    }

    // Tells the client why, so that it need not guess.
    void reject(const Client& client, Verdict verdict) const {
        Hello hello = make_hello(options_.kind, membarrier_);
        hello.verdict = static_cast<std::uint32_t>(verdict);
        send_hello(client.connection.socket(), hello, {});
    }

    // True if this client has completed the handshake.
    bool step(Client& client) {
        if (client.state == Client::State::greeting) {
            switch (client.reader.advance(client.connection.socket())) {
                case HelloReader::Progress::more: return false;
                case HelloReader::Progress::failed: drop(client); return false;
                case HelloReader::Progress::complete: greet(client); return false;
            }
        }
        char byte = 0;
        const ssize_t n = ::recv(client.connection.socket(), &byte, 1, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
        if (n == 1 && byte == kReady && client.state == Client::State::offered) return true;
        drop(client);
        return false;
    }

    void greet(Client& client) {
        const Hello& hello = client.reader.hello();
        if (!is_ours(hello)) return drop(client);
        const Verdict verdict = judge(hello, options_.kind);
        if (verdict == Verdict::accepted) {
            client.state = Client::State::greeted;
            return;
        }
        reject(client, verdict);
        if (verdict == Verdict::wrong_kind) {
            fail_handshake(EPROTOTYPE, std::string("a ") + kind_name(hello.kind) + " connected to " + path_ +
                                           ", where a " + kind_name(static_cast<std::uint16_t>(options_.kind)) +
                                           " listens; use the same class on both sides");
        }
        drop(client);
    }

    Established finish(std::size_t index) {
        Connection connection = std::move(clients_[index]->connection);
        file_.reset();  // before the last word: who has been let in sees the path gone
        clients_.clear();
        send_ready(connection.socket());  // should it have died meanwhile, the first use of the bus says so
        for (Segment& segment : segments_) segment.close_descriptor();
        return {std::move(connection), std::move(segments_)};
    }

    const std::string& path_;
    const ListenOptions& options_;
    const Interrupt& interrupt_;
    const bool membarrier_ = register_membarrier();
    std::vector<Segment> segments_;
    std::unique_ptr<SocketFile> file_;
    std::vector<std::unique_ptr<Client>> clients_;  // oldest first
};

// ---- connector -----------------------------------------------------------------------------------------------------------

void name_connector(int socket) {
    // Not std::random_device: where that opens a file, it throws when there are no descriptors left.
    std::array<unsigned, 2> random{};
    (void)::getentropy(random.data(), sizeof random);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, kConnectorName.data(), kConnectorName.size());
    const int digits =
        std::snprintf(address.sun_path + kConnectorName.size(), sizeof address.sun_path - kConnectorName.size(),
                      "%d-%08x%08x", ::getpid(), random[0], random[1]);
    const auto length = offsetof(sockaddr_un, sun_path) + kConnectorName.size() + static_cast<std::size_t>(digits);
    // Without a name the handshake works all the same; it only tells the listener less.
    (void)::bind(socket, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(length));
}

class Connector {
  public:
    Connector(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt)
        : path_(path), options_(options), interrupt_(interrupt), address_(make_address(path)) {}

    Established run() {
        std::uint64_t pause = kMillisecond;
        for (;;) {
            try {
                return attempt();
            } catch (const NotNow& reason) {
                if (options_.deadline == 0) fail_handshake(reason.error_number, reason.what);
                if (now_ns() >= options_.deadline) {
                    throw SetupError(SetupFailure::timed_out, ETIMEDOUT, reason.what + " (until the timeout)");
                }
            }
            if (interrupt_()) throw_interrupted();
            const std::uint64_t now = now_ns();
            pause_for(std::min(pause, options_.deadline - std::min(options_.deadline, now)));
            pause = std::min(2 * pause, 20 * kMillisecond);
        }
    }

  private:
    Established attempt() {
        patience_ = options_.deadline == 0 ? now_ns() + kPatience : options_.deadline;
        Connection connection = open();
        const bool membarrier = register_membarrier();
        const Hello ours = make_hello(options_.kind, membarrier);
        // A listener that refuses this user says so and hangs up without listening: its answer tells more than this failure.
        if (!send_hello(connection.socket(), ours, {}) && errno != EPIPE && errno != ECONNRESET) hung_up();
        HelloReader reader(options_.segments);
        receive(connection.socket(), reader);
        const Hello& theirs = reader.hello();
        check(theirs);
        if (theirs.segments != options_.segments || reader.descriptors().size() != options_.segments) {
            fail_handshake(EPROTO, "the listener at " + path_ + " passed " +
                                       std::to_string(reader.descriptors().size()) + " descriptors, not " +
                                       std::to_string(options_.segments));
        }
        std::vector<Segment> segments;
        for (std::size_t i = 0; i < options_.segments; ++i) {
            segments.push_back(Segment::attach(std::move(reader.descriptors()[i]), theirs.capacity[i]));
            segments.back().close_descriptor();
        }
        connection.set_barrier(agreed_barrier(membarrier, theirs));
        patience_ = std::max(patience_, now_ns() + kMillisecond * 1000);  // mapping may have used it up
        if (!send_ready(connection.socket())) hung_up();
        receive_ready(connection.socket());
        return {std::move(connection), std::move(segments)};
    }

    Connection open() {
        for (;;) {
            Descriptor socket = make_stream_socket();
            name_connector(socket.get());
            if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_) == 0) {
                Connection connection(std::move(socket), Side::connector);
                check_user(connection.peer_uid());
                return connection;
            }
            const int error_number = errno;
            if (error_number == EINTR) continue;
            if (error_number ==
                EAGAIN) {  // its queue is full: it lives, so wait a little even if one try was asked for
                if (now_ns() >= patience_) {
                    throw NotNow{error_number, "the listener at " + path_ + " does not accept anybody"};
                }
                if (interrupt_()) throw_interrupted();
                pause_for(kMillisecond);
                continue;
            }
            const std::string why = std::strerror(error_number);
            if (error_number == ENOENT || error_number == ECONNREFUSED) {
                throw NotNow{error_number, "no listener at " + path_ + " (" + why +
                                               "); start the listening side first or pass a timeout to wait for it"};
            }
            fail_handshake(error_number, "cannot connect to " + path_ + ": " + why);
        }
    }

    void check_user(uid_t peer) const {
        const bool trusted = options_.uid ? peer == *options_.uid : peer == ::geteuid() || peer == 0;
        if (!trusted) {
            fail_handshake(EACCES, "the listener at " + path_ + " belongs to user " + std::to_string(peer) +
                                       ", not to user " + std::to_string(options_.uid.value_or(::geteuid())) +
                                       "; name the user you trust with uid=");
        }
    }

    void receive(int socket, HelloReader& reader) const {
        for (;;) {
            if (!wait_for(socket, POLLIN, patience_, interrupt_)) silent();
            const auto progress = reader.advance(socket);
            if (progress == HelloReader::Progress::complete) return;
            if (progress == HelloReader::Progress::more) continue;
            if (reader.misbehaved()) {
                fail_handshake(EPROTO, "the listener at " + path_ + " passed more descriptors than were asked for");
            }
            if (reader.starved()) {
                fail_handshake(EMFILE, "cannot take the descriptors from the listener at " + path_ + ": " +
                                           std::strerror(EMFILE) + "; close some descriptors or raise `ulimit -n`");
            }
            hung_up();
        }
    }

    void receive_ready(int socket) const {
        for (;;) {
            if (!wait_for(socket, POLLIN, patience_, interrupt_)) silent();
            char byte = 0;
            const ssize_t n = ::recv(socket, &byte, 1, MSG_DONTWAIT);
            if (n == 1 && byte == kReady) return;
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (n == 1) fail_handshake(EPROTO, "the listener at " + path_ + " did not end the handshake as it should");
            hung_up();
        }
    }

    void check(const Hello& theirs) const {
        if (!is_ours(theirs)) {
            fail_handshake(EPROTO,
                           "whoever listens at " + path_ + " does not speak this protocol or has another byte order");
        }
        const auto verdict = static_cast<Verdict>(theirs.verdict);
        if (verdict == Verdict::wrong_user) {
            fail_handshake(EACCES, "the listener at " + path_ + " refuses user " + std::to_string(::geteuid()) +
                                       "; let it listen with another mode=");
        }
        switch (judge(theirs, options_.kind)) {
            case Verdict::wrong_version:
                fail_handshake(EPROTONOSUPPORT, "the listener at " + path_ + " speaks protocol version " +
                                                    std::to_string(theirs.version) + ", this side " +
                                                    std::to_string(kProtocolVersion) +
                                                    "; install the same release on both");
            case Verdict::wrong_layout:
                fail_handshake(EPROTONOSUPPORT, "the listener at " + path_ +
                                                    " has another memory layout; install the same release on both");
            case Verdict::wrong_kind:
                fail_handshake(EPROTOTYPE, "a " + std::string(kind_name(theirs.kind)) + " listens at " + path_ +
                                               ", not a " + kind_name(static_cast<std::uint16_t>(options_.kind)) +
                                               "; use the same class on both sides");
            default: break;
        }
        if (verdict != Verdict::accepted) {
            fail_handshake(EPROTO, "the listener at " + path_ + " refused with code " + std::to_string(theirs.verdict));
        }
    }

    [[noreturn]] void silent() const {
        const std::string what = "the listener at " + path_ + " accepted the connection but did not answer in time";
        if (options_.deadline != 0) throw SetupError(SetupFailure::timed_out, ETIMEDOUT, what);
        fail_handshake(ETIMEDOUT, what + "; it may be stopped, or not speak this protocol");
    }

    // It chose another client, was interrupted, or died: with time left the next listener may be ours.
    [[noreturn]] void hung_up() const {
        throw NotNow{ECONNRESET,
                     "the listener at " + path_ + " hung up during the handshake; it may serve another client"};
    }

    const std::string& path_;
    const ConnectOptions& options_;
    const Interrupt& interrupt_;
    const sockaddr_un address_;
    std::uint64_t patience_ = 0;
};

}  // namespace

// ---- connection ----------------------------------------------------------------------------------------------------------

Connection::Connection(Descriptor socket, Side side) : socket_(std::move(socket)), side_(side) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        fail_handshake(errno, std::string("cannot learn who the peer is: ") + std::strerror(errno));
    }
    peer_pid_ = credentials.pid;
    peer_uid_ = credentials.uid;
    // The socket's own pidfd cannot be of another process that got the same pid; older kernels (< 6.5) have only the pid.
    int number = -1;
    length = sizeof number;
    if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERPIDFD, &number, &length) != 0) {
        if (errno != EMFILE && peer_pid_ > 0) number = static_cast<int>(::syscall(SYS_pidfd_open, peer_pid_, 0));
        if (number < 0 && (errno == EMFILE || errno == ENFILE)) {
            fail_handshake(errno, std::string("cannot watch the peer: ") + std::strerror(errno) +
                                      "; close some descriptors or raise `ulimit -n`");
        }
    }
    process_ = Descriptor(number);  // where none can be had, the socket is all we have
}

bool Connection::hung_up() const noexcept {
    if (!socket_) return true;
    // Hang-up is reported whether or not the peer left bytes in the socket.
    std::array<pollfd, 2> entries{{{socket_.get(), POLLRDHUP, 0}, {process_.get(), POLLIN, 0}}};
    return ::poll(entries.data(), entries.size(), 0) > 0;
}

void Connection::shut_down() noexcept {
    if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
    abandon();
}

void Connection::abandon() noexcept {
    socket_.reset();
    process_.reset();
}

Established listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt) {
    return Listener(path, options, interrupt).run();
}

Established connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt) {
    return Connector(path, options, interrupt).run();
}

}  // namespace tachyon
