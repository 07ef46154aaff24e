#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "hello.hpp"
#include "platform.hpp"
#include "tachyon/handshake.hpp"
#include "tachyon/socket_file.hpp"

namespace tachyon {
namespace {

constexpr std::size_t kMostClients = 64;              // that may be in the handshake at once
constexpr std::uint64_t kGrace = 100 * kMillisecond;  // that a client has to begin before others take its place
constexpr std::size_t kMostOffers = 8;                // of them, that may hold segments which are not yet theirs

// Mapping and populating a large segment takes the connector about this much longer.
std::uint64_t patience_for(const std::vector<std::uint64_t>& capacities) {
    std::uint64_t bytes = 0;
    for (const std::uint64_t capacity : capacities) bytes += capacity;
    return kPatience + (bytes >> 30) * kPatiencePerGiB;
}

}  // namespace

// One client on its way through the handshake.
struct Listener::Client {
    enum class State { greeting, greeted, offered };

    Client(Listener& its_listener, Connection&& its_connection)
        : listener(its_listener), connection(std::move(its_connection)) {}
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client() {
        if (connection.socket() < 0) return;  // let in, or another process's
        // A forked child may hold this socket open: by its closing alone neither the queue nor the client would learn of it.
        listener.events_.remove(connection.socket());
        connection.shut_down();
    }

    Listener& listener;
    Connection connection;
    HelloReader reader{0};  // a client has no descriptors to pass
    const std::uint64_t accepted = now_ns();
    std::uint64_t deadline = accepted + kPatience;
    State state = State::greeting;
    std::vector<Segment> segments;  // once they have been offered; never offered to another one
};

Listener::Listener(const std::string& path, ListenOptions options, const Interrupt& interrupt)
    : Listener(path, std::move(options), Clients::many, interrupt) {}

Listener::Listener(std::string path, ListenOptions options, Clients clients, const Interrupt& interrupt)
    : path_(std::move(path)),
      options_(std::move(options)),
      once_(clients == Clients::one),
      membarrier_(register_membarrier()),
      events_("watch for clients") {
    make_address(path_);  // a bad path before a large reservation
    spare_ = make_segments({options_.deadline, interrupt, "memory was being reserved for " + path_});
    if (!once_) events_.set_timer(kNever);  // one's accept() keeps the time by itself, and nobody sees its descriptor
    file_ = std::make_unique<SocketFile>(path_, options_.mode, interrupt);
    watch_file(true);
}

Listener::~Listener() = default;

std::vector<Segment> Listener::make_segments(const Patience& patience) const {
    std::vector<Segment> segments;
    segments.reserve(options_.capacities.size());
    for (const std::uint64_t capacity : options_.capacities) segments.push_back(Segment::create(capacity, patience));
    return segments;
}

// ---- rounds --------------------------------------------------------------------------------------------------------------

Established Listener::accept(std::uint64_t deadline, const Interrupt& interrupt) {
    for (;;) {
        if (interrupt()) throw_interrupted();
        if (auto established = try_accept()) return std::move(*established);
        if (now_ns() >= deadline) {
            throw SetupError(SetupFailure::timed_out, ETIMEDOUT,
                             "nobody connected to " + path_ + " within the timeout");
        }
        void* tag = nullptr;
        events_.wait({&tag, 1}, poll_timeout(std::min(deadline, next_deadline())));
    }
}

std::optional<Established> Listener::try_accept() {
    if (forked()) fail_handshake(EBADF, "the listener at " + path_ + " belongs to the parent of this process");
    drop_late();
    accept_all();
    std::optional<Established> established;
    // Backwards: a client that is dropped leaves the ones not yet looked at where they are.
    for (std::size_t i = clients_.size(); i-- > 0 && !established;) {
        if (step(*clients_[i])) established = finish(*clients_[i]);
    }
    if (established && once_) return established;
    try {
        offer_next();
    } catch (const SetupError&) {
        expect_more();
        if (!established) throw;  // else the next client that finds no memory tells about it
    }
    expect_more();
    return established;
}

// What the descriptor will be readable for.
void Listener::expect_more() noexcept {
    // With so many clients it would be ready all the time, and nothing could be done about it.
    watch_file(clients_.size() < kMostClients);
    events_.forget_past();
    if (!once_) events_.set_timer(next_deadline());
}

std::uint64_t Listener::next_deadline() const noexcept {
    std::uint64_t next = kNever;
    const bool full = clients_.size() >= kMostClients;
    for (const auto& client : clients_) {
        next = std::min(next, client->deadline);
        if (full && client->state == Client::State::greeting) next = std::min(next, client->accepted + kGrace);
    }
    return next;
}

void Listener::watch(int descriptor) {
    const int error_number = events_.add(descriptor, nullptr);
    if (error_number != 0) {
        fail_handshake(error_number, std::string("cannot watch a client: ") + std::strerror(error_number));
    }
}

void Listener::watch_file(bool wanted) noexcept {
    if (wanted == watching_file_) return;
    if (!wanted) {
        events_.remove(file_->descriptor());
        watching_file_ = false;
    } else {
        watching_file_ = events_.add(file_->descriptor(), nullptr) == 0;
    }
}

// ---- clients come and go ---------------------------------------------------------------------------------------------------

void Listener::drop(const Client& client) noexcept {
    std::erase_if(clients_, [&](const auto& each) { return each.get() == &client; });
}

void Listener::drop_late() noexcept {
    const std::uint64_t now = now_ns();
    std::erase_if(clients_, [now](const auto& each) { return each->deadline <= now; });
}

// Silent: it has had `silence` ns, and there is nothing of it that has not been read yet.
bool Listener::drop_oldest_silent(std::uint64_t silence) noexcept {
    const std::uint64_t now = now_ns();
    const auto oldest = std::ranges::find_if(clients_, [&](const auto& each) {
        pollfd entry{each->connection.socket(), POLLIN, 0};
        return each->state == Client::State::greeting && now - each->accepted >= silence && ::poll(&entry, 1, 0) == 0;
    });
    if (oldest == clients_.end()) return false;
    clients_.erase(oldest);
    return true;
}

void Listener::accept_all() {
    for (;;) {
        if (clients_.size() >= kMostClients && !drop_oldest_silent(kGrace)) return;
        Descriptor socket = accept_stream_socket(file_->descriptor());
        if (!socket) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
            const int error_number = errno;
            // The kernel wants a free number before it looks whether anybody is there.
            pollfd entry{file_->descriptor(), POLLIN, 0};
            if (::poll(&entry, 1, 0) == 0) return;
            if (drop_oldest_silent(0)) continue;
            fail_descriptor(error_number, "cannot accept a client");
        }
        std::unique_ptr<Client> client;
        try {
            client = std::make_unique<Client>(*this, Connection(std::move(socket), Side::listener));
            watch(client->connection.socket());
        } catch (const SetupError&) {  // its own descriptor was the last one
            if (drop_oldest_silent(0)) continue;
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

// ---- one client's steps ----------------------------------------------------------------------------------------------------

// True if this client has completed the handshake. Otherwise it may be gone.
bool Listener::step(Client& client) {
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

void Listener::greet(Client& client) {
    const Hello& hello = client.reader.hello();
    if (!is_ours(hello)) return drop(client);
    const Verdict verdict = judge(hello, options_.kind);
    if (verdict == Verdict::accepted) {
        client.state = Client::State::greeted;
        return;
    }
    reject(client, verdict);
    const std::uint16_t kind = hello.kind;
    drop(client);
    if (verdict == Verdict::wrong_kind && once_) {
        fail_handshake(EPROTOTYPE, std::string("a ") + kind_name(kind) + " connected to " + path_ + ", where a " +
                                       kind_name(static_cast<std::uint16_t>(options_.kind)) +
                                       " listens; use the same class on both sides");
    }
}

// Tells the client why, so that it need not guess.
void Listener::reject(const Client& client, Verdict verdict) const {
    Hello hello = make_hello(options_.kind, membarrier_);
    hello.verdict = static_cast<std::uint32_t>(verdict);
    send_hello(client.connection.socket(), hello, {});
}

// Each client gets segments of its own, which nobody else has seen. Who wants only one client offers them to one at a time.
void Listener::offer_next() {
    for (;;) {
        const auto offers =
            std::ranges::count_if(clients_, [](const auto& each) { return each->state == Client::State::offered; });
        if (std::cmp_greater_equal(offers, once_ ? 1 : kMostOffers)) return;
        const auto next =
            std::ranges::find_if(clients_, [](const auto& each) { return each->state == Client::State::greeted; });
        if (next == clients_.end()) return;
        Client& client = **next;
        try {
            client.segments = spare_.empty() ? make_segments({}) : std::exchange(spare_, {});
        } catch (const SetupError&) {
            drop(client);
            throw;
        }
        Hello hello = make_hello(options_.kind, membarrier_);
        hello.segments = static_cast<std::uint32_t>(client.segments.size());
        for (std::size_t i = 0; i < client.segments.size(); ++i) hello.capacity[i] = client.segments[i].capacity();
        client.state = Client::State::offered;
        client.deadline = now_ns() + patience_for(options_.capacities);
        client.connection.set_barrier(agreed_barrier(membarrier_, client.reader.hello()));
        if (!send_hello(client.connection.socket(), hello, client.segments)) drop(client);
    }
}

Established Listener::finish(Client& client) {
    Established established{std::move(client.connection), std::move(client.segments)};
    events_.remove(established.connection.socket());
    if (once_) {
        file_.reset();  // before the last word: who has been let in sees the path gone
        clients_.clear();
    } else {
        drop(client);
    }
    send_ready(established.connection.socket());  // should it have died meanwhile, the first use of the bus says so
    for (Segment& segment : established.segments) segment.close_descriptor();
    return established;
}

Established listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt) {
    return Listener(path, options, Listener::Clients::one, interrupt).accept(options.deadline, interrupt);
}

}  // namespace tachyon
