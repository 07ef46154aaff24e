#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "hello.hpp"
#include "port/memory.hpp"
#include "port/sockets.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/link/socket_file.hpp"

namespace tachyon {
namespace {

constexpr std::size_t kMostClients = 128;             // that may be in the handshake at once
constexpr std::size_t kMostSilent = 64;               // of them all, before silent ones make room
constexpr int kMostAccepted = 64;                     // at a time
constexpr std::uint64_t kGrace = 100 * kMillisecond;  // that a client has before others may take its place
constexpr std::size_t kMostOffers = 8;                // that may hold segments which are not yet theirs
constexpr std::size_t kMostOffersToOne = 6;           // of them, to one process

// By so much mapping and populating large segments takes the connector longer.
std::uint64_t time_to_map(const std::vector<std::uint64_t>& capacities) {
    std::uint64_t mebibytes = 0;
    for (const std::uint64_t capacity : capacities) mebibytes += capacity >> 20;
    return mebibytes * 2 * kMillisecond;
}

}  // namespace

// One client on its way through the handshake.
struct Listener::Client {
    enum class State { greeting, greeted, offered };

    Client(Listener& its_listener, Connection&& its_connection)
        : listener(its_listener), connection(std::move(its_connection)), process(connection.peer_pid()) {}
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client() {
        if (connection.socket() < 0) return;  // let in, or another process's
        // A forked child may hold this socket open: by its closing alone neither the queue nor the client would learn of it.
        listener.events_.remove(connection.socket());
        connection.shut_down();
        // It may keep the segments; the memory would be ours for as long. All but the header: a client that is only slow
        // reads there what it was promised, and then finds the connection gone.
        for (const Segment& segment : segments) {
            discard_memory(segment.descriptor(), kHeaderBytes, segment.capacity());
        }
    }

    Listener& listener;
    Connection connection;
    const pid_t process;
    HelloReader reader{0};  // a client has no descriptors to pass
    const std::uint64_t accepted = now_ns();
    std::uint64_t deadline = accepted + kPatience;
    State state = State::greeting;
    std::uint64_t offered = 0;      // when
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
        if (auto established = advance({deadline, interrupt})) return std::move(*established);
        if (now_ns() >= deadline) {
            throw SetupError(SetupFailure::timed_out, ETIMEDOUT,
                             "nobody connected to " + path_ + " within the timeout");
        }
        void* tag = nullptr;
        events_.wait({&tag, 1}, poll_timeout(std::min(deadline, next_deadline())));
    }
}

std::optional<Established> Listener::try_accept() { return advance({}); }

std::optional<Established> Listener::advance(const Patience& patience) {
    if (forked()) fail_handshake(EBADF, "the listener at " + path_ + " belongs to the parent of this process");
    now_ = now_ns();
    offered_ = false;
    drop_late();
    accept_all();
    std::optional<Established> established;
    // Backwards: a client that is dropped leaves the ones not yet looked at where they are.
    for (std::size_t i = clients_.size(); i-- > 0 && !established;) {
        if (step(*clients_[i])) established = finish(*clients_[i]);
    }
    if (established && once_) return established;
    try {
        offer_next(patience);
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
    watch_file(clients_.size() < kMostClients || find_victim(Victims::any, kGrace) != nullptr);
    events_.forget_past();
    if (!once_) events_.set_timer(next_deadline());
}

std::uint64_t Listener::next_deadline() const noexcept {
    if (offered_) return now_;
    std::uint64_t next = kNever;
    const std::uint64_t time = kGrace + time_to_map(options_.capacities);
    const bool wanted = next_to_offer() != nullptr;
    for (const auto& client : clients_) {
        next = std::min(next, client->deadline);
        const bool silent = client->state == Client::State::greeting;
        // What is past by now was so at the last look too, unless it is past by less than this round has taken.
        const std::uint64_t evictable = client->accepted + kGrace;
        if (silent && clients_.size() > kMostSilent) next = std::min(next, evictable);
        if (!watching_file_ && evictable > now_) next = std::min(next, evictable);
        if (wanted && client->offered + time > now_) next = std::min(next, client->offered + time);
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

std::size_t Listener::places_of(pid_t process) const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count_if(clients_, [process](const auto& each) { return each->process == process; }));
}

// Of the process that holds most places, a client that has had `time` ns: the oldest silent one, of which there is nothing
// that has not been read yet; or else the newest one that waits for an offer. A process's only client may wait.
const Listener::Client* Listener::find_victim(Victims victims, std::uint64_t time) const noexcept {
    const std::uint64_t now = now_ns();
    const Client* victim = nullptr;
    std::size_t most = 0;
    for (const auto& each : clients_) {
        if (each->state == Client::State::offered || now - each->accepted < time) continue;
        const bool silent = each->state == Client::State::greeting;
        const std::size_t places = places_of(each->process);
        if (!silent && (victims == Victims::silent || places == 1)) continue;
        if (places < most || (places == most && victim->state == Client::State::greeting)) continue;
        if (silent && is_readable(each->connection.socket())) continue;
        victim = each.get();
        most = places;
    }
    return victim;
}

bool Listener::evict(Victims victims, std::uint64_t time) noexcept {
    const Client* const victim = find_victim(victims, time);
    if (victim != nullptr) drop(*victim);
    return victim != nullptr;
}

void Listener::accept_all() {
    while (clients_.size() > kMostSilent && evict(Victims::silent, kGrace)) {}
    for (int i = 0; i < kMostAccepted; ++i) {
        const bool full = clients_.size() >= kMostClients;
        if (full && (!is_readable(file_->descriptor()) || !evict(Victims::any, kGrace))) return;
        Descriptor socket = accept_stream_socket(file_->descriptor());
        if (!socket) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
            const int error_number = errno;
            // The kernel wants a free number before it looks whether anybody is there.
            if (!is_readable(file_->descriptor())) return;
            if (evict(Victims::silent, 0)) continue;
            fail_descriptor(error_number, "cannot accept a client");
        }
        std::unique_ptr<Client> client;
        try {
            client = std::make_unique<Client>(*this, Connection(std::move(socket), Side::listener));
            watch(client->connection.socket());
        } catch (const SetupError&) {  // its own descriptor was the last one
            if (evict(Victims::silent, 0)) continue;
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

std::size_t Listener::offers_to(pid_t process) const noexcept {
    return static_cast<std::size_t>(std::ranges::count_if(clients_, [process](const auto& each) {
        return each->process == process && each->state == Client::State::offered;
    }));
}

// Of those that wait the first one of the process with the fewest offers.
Listener::Client* Listener::next_to_offer() const noexcept {
    Client* next = nullptr;
    std::size_t fewest = once_ ? 1 : kMostOffersToOne;
    for (const auto& each : clients_) {
        if (each->state != Client::State::greeted) continue;
        const std::size_t offers = offers_to(each->process);
        if (offers >= fewest) continue;
        next = each.get();
        fewest = offers;
    }
    return next;
}

// Of the process with most offers, and with so many at least, the oldest one that could have been taken by now.
const Listener::Client* Listener::find_stalled(std::size_t offers) const noexcept {
    const std::uint64_t time = kGrace + time_to_map(options_.capacities);
    const Client* stalled = nullptr;
    for (const auto& each : clients_) {
        if (each->state != Client::State::offered || each->offered + time > now_) continue;
        const std::size_t its = offers_to(each->process);
        if (its < offers || (stalled != nullptr && its == offers)) continue;
        stalled = each.get();
        offers = its;
    }
    return stalled;
}

// Who wants only one client offers to a second one, of another process, when the first one stalls: the first to take it is let in.
bool Listener::make_room_for_offer(const Client& client) noexcept {
    const auto offers =
        std::ranges::count_if(clients_, [](const auto& each) { return each->state == Client::State::offered; });
    if (once_) return offers == 0 || (offers == 1 && find_stalled(1) != nullptr);
    if (std::cmp_less(offers, kMostOffers)) return true;
    const Client* const stalled = find_stalled(offers_to(client.process) + 2);
    if (stalled != nullptr) drop(*stalled);
    return stalled != nullptr;
}

// Each client gets segments of its own, which nobody else has seen. One client at a time: reserving them may take long.
void Listener::offer_next(const Patience& patience) {
    Client* const next = next_to_offer();
    if (next == nullptr || !make_room_for_offer(*next)) return;
    Client& client = *next;
    offered_ = true;
    try {
        client.segments = spare_.empty() ? make_segments(patience) : std::exchange(spare_, {});
    } catch (const SetupError& error) {
        offered_ = false;
        if (error.failure() == SetupFailure::timed_out || error.failure() == SetupFailure::interrupted) throw;
        if (const Client* const stalled = find_stalled(offers_to(client.process) + 1)) {  // its memory may do
            drop(*stalled);
            offered_ = true;
            return;
        }
        drop(client);
        throw;
    }
    Hello hello = make_hello(options_.kind, membarrier_);
    hello.segments = static_cast<std::uint32_t>(client.segments.size());
    for (std::size_t i = 0; i < client.segments.size(); ++i) hello.capacity[i] = client.segments[i].capacity();
    client.state = Client::State::offered;
    client.offered = now_ns();
    client.deadline = client.offered + kPatience + time_to_map(options_.capacities);
    client.connection.set_barrier(agreed_barrier(membarrier_, client.reader.hello()));
    if (!send_hello(client.connection.socket(), hello, client.segments)) drop(client);
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
