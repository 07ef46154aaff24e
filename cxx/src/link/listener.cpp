#include "tachyon/listener.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "clients.hpp"
#include "greeting.hpp"
#include "offer.hpp"
#include "platform/sockets.hpp"
#include "tachyon/error.hpp"
#include "tachyon/link/socket_file.hpp"

namespace tachyon {
namespace {

constexpr int kMostAccepted = 64;  // at a time

// By so much mapping and populating large segments takes the connector longer.
std::uint64_t time_to_map(const std::vector<SegmentOffer>& offers) {
    std::uint64_t mebibytes = 0;
    for (const SegmentOffer& offer : offers) mebibytes += offer.bytes >> 20;
    return mebibytes * 2 * kMillisecond;
}

}  // namespace

// What listen() and a Listener have in common.
class Reception {
  public:
    enum class For : bool { one, many };
    Reception(std::string path, const ListenOptions& options, For clients, const Interrupt& interrupt);

    Established accept(std::uint64_t deadline, const Interrupt& interrupt);
    std::optional<Established> advance(const Patience& patience);
    [[nodiscard]] int descriptor() const noexcept { return events_.descriptor(); }
    [[nodiscard]] bool forked() const noexcept { return file_ && file_->forked(); }

  private:
    void watch(int descriptor);
    void watch_file(bool wanted) noexcept;
    void expect_more() noexcept;
    void accept_all();
    void admit(Descriptor socket);
    bool step(Client& client);
    void greet(Client& client);
    void reject(const Client& client, Verdict verdict) const;
    void offer_next(const Patience& patience);
    [[nodiscard]] bool send_offer(const Client& client, const std::vector<Descriptor>& for_reading) const;
    Established finish(Client& client);
    [[nodiscard]] std::uint64_t next_deadline() const noexcept;

    const std::string path_;
    const mode_t mode_;
    const std::string schema_;
    const Arrangement& arrangement_;
    const std::vector<SegmentOffer> offers_;
    const bool once_;
    const Hello hello_;           // what everybody is told, less the offers
    std::vector<Segment> spare_;  // for the next client
    std::unique_ptr<SocketFile> file_;
    EventQueue events_;
    bool watching_file_ = false;
    bool offered_ = false;   // in this round: there may be more to offer
    std::uint64_t now_ = 0;  // when this round began
    Clients clients_;
};

Reception::Reception(std::string path, const ListenOptions& options, For clients, const Interrupt& interrupt)
    : path_(std::move(path)),
      mode_(options.mode),
      schema_(options.schema),
      arrangement_(options.arrangement != nullptr ? *options.arrangement : arrangement_of(options.kind)),
      offers_(describe_offers(arrangement_, options.capacities)),
      once_(clients == For::one),
      hello_(make_hello(arrangement_, make_abilities(register_membarrier(), options.max_large), schema_)),
      events_("watch for clients"),
      clients_(once_, time_to_map(offers_)) {
    make_address(path_);  // a bad path before a large reservation
    spare_ =
        make_segments(arrangement_, offers_, {options.deadline, interrupt, "memory was being reserved for " + path_});
    if (!once_) events_.set_timer(kNever);  // one's accept() keeps the time by itself, and nobody sees its descriptor
    file_ = std::make_unique<SocketFile>(path_, mode_, interrupt);
    watch_file(true);
}

// ---- rounds --------------------------------------------------------------------------------------------------------------

Established Reception::accept(std::uint64_t deadline, const Interrupt& interrupt) {
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

std::optional<Established> Reception::advance(const Patience& patience) {
    if (forked()) fail_handshake(EBADF, "the listener at " + path_ + " belongs to the parent of this process");
    now_ = now_ns();
    offered_ = false;
    clients_.drop_late();
    accept_all();
    std::optional<Established> established;
    // Backwards: a client that is dropped leaves the ones not yet looked at where they are.
    for (std::size_t i = clients_.size(); i-- > 0 && !established;) {
        if (step(clients_[i])) established = finish(clients_[i]);
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
void Reception::expect_more() noexcept {
    // With so many clients it would be ready all the time, and nothing could be done about it.
    watch_file(clients_.size() < kMostClients || clients_.has_victim(Clients::Victims::any, kGrace));
    events_.forget_past();
    if (!once_) events_.set_timer(next_deadline());
}

std::uint64_t Reception::next_deadline() const noexcept {
    return offered_ ? now_ : clients_.next_deadline(now_, watching_file_);
}

void Reception::watch(int descriptor) {
    const int error_number = events_.add(descriptor, nullptr);
    if (error_number != 0) {
        fail_handshake(error_number, std::string("cannot watch a client: ") + std::strerror(error_number));
    }
}

void Reception::watch_file(bool wanted) noexcept {
    if (wanted == watching_file_) return;
    if (!wanted) {
        events_.remove(file_->descriptor());
        watching_file_ = false;
    } else {
        watching_file_ = events_.add(file_->descriptor(), nullptr) == 0;
    }
}

// ---- clients come ----------------------------------------------------------------------------------------------------------

void Reception::accept_all() {
    while (clients_.size() > kMostSilent && clients_.evict(Clients::Victims::silent, kGrace)) {}
    for (int i = 0; i < kMostAccepted; ++i) {
        const bool full = clients_.size() >= kMostClients;
        if (full && (!is_readable(file_->descriptor()) || !clients_.evict(Clients::Victims::any, kGrace))) return;
        Descriptor socket = accept_stream_socket(file_->descriptor());
        if (!socket) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
            const int error_number = errno;
            // The kernel wants a free number before it looks whether anybody is there.
            if (!is_readable(file_->descriptor())) return;
            if (clients_.evict(Clients::Victims::silent, 0)) continue;
            fail_descriptor(error_number, "cannot accept a client");
        }
        try {
            admit(std::move(socket));
        } catch (const SetupError&) {  // its own descriptor was the last one
            if (clients_.evict(Clients::Victims::silent, 0)) continue;
            throw;
        }
    }
}

void Reception::admit(Descriptor socket) {
    auto client = std::make_unique<Client>(events_, arrangement_, Connection(std::move(socket), Side::listener));
    watch(client->connection.socket());
    const uid_t peer = client->connection.peer_uid();
    const bool everybody = (mode_ & 0077) != 0;
    if (peer != ::geteuid() && peer != 0 && !everybody) return reject(*client, Verdict::wrong_user);
    clients_.add(std::move(client));
}

// ---- one client's steps ----------------------------------------------------------------------------------------------------

// True if this client has completed the handshake. Otherwise it may be gone.
bool Reception::step(Client& client) {
    if (client.silent()) {
        switch (client.reader.advance(client.connection.socket())) {
            case HelloReader::Progress::more: return false;
            case HelloReader::Progress::failed: clients_.drop(client); return false;
            case HelloReader::Progress::complete: greet(client); return false;
        }
    }
    char byte = 0;
    const ssize_t n = ::recv(client.connection.socket(), &byte, 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n == 1 && byte == kReady && client.has_offer()) return true;
    clients_.drop(client);
    return false;
}

void Reception::greet(Client& client) {
    const Hello& hello = client.reader.hello();
    if (!is_ours(hello)) return clients_.drop(client);
    const Verdict verdict = judge(hello, arrangement_);
    if (verdict == Verdict::accepted) {
        if (!is_request(hello)) return clients_.drop(client);
        client.state = Client::State::greeted;
        return;
    }
    reject(client, verdict);
    const std::uint16_t kind = hello.kind;
    clients_.drop(client);
    if (verdict == Verdict::wrong_kind && once_) {
        fail_handshake(EPROTOTYPE, std::string("a ") + kind_name(kind) + " connected to " + path_ + ", where a " +
                                       arrangement_.name + " listens; use the same class on both sides");
    }
}

// Tells the client why, so that it need not guess.
void Reception::reject(const Client& client, Verdict verdict) const {
    Hello hello = hello_;
    hello.verdict = static_cast<std::uint32_t>(verdict);
    send_hello(client.connection.socket(), hello, schema_);
}

// Each client gets segments of its own, which nobody else has seen. One client at a time: reserving them may take long.
void Reception::offer_next(const Patience& patience) {
    Client* const next = clients_.next_to_offer();
    if (next == nullptr || !clients_.make_room_for_offer(*next, now_)) return;
    Client& client = *next;
    offered_ = true;
    std::vector<Descriptor> for_reading;
    try {
        client.segments = spare_.empty() ? make_segments(arrangement_, offers_, patience) : std::exchange(spare_, {});
        for_reading = share_for_reading(client.segments, offers_);
    } catch (const SetupError& error) {
        offered_ = false;
        if (error.failure() == SetupFailure::timed_out || error.failure() == SetupFailure::interrupted) throw;
        if (clients_.make_memory_for_offer(client, now_)) {
            offered_ = true;
            return;
        }
        clients_.drop(client);
        throw;
    }
    client.state = Client::State::offered;
    client.offered = now_ns();
    client.deadline = client.offered + kPatience + time_to_map(offers_);
    settle(client.connection, hello_.abilities, client.reader.hello().abilities);
    if (!send_offer(client, for_reading)) clients_.drop(client);
}

bool Reception::send_offer(const Client& client, const std::vector<Descriptor>& for_reading) const {
    Hello hello = hello_;
    hello.segments = static_cast<std::uint32_t>(offers_.size());
    std::ranges::copy(offers_, hello.offers);
    std::array<int, kMaxSegments> numbers{};
    for (std::size_t i = 0; i < offers_.size(); ++i) {
        numbers[i] = for_reading[i] ? for_reading[i].get() : client.segments[i].descriptor();
    }
    return send_hello(client.connection.socket(), hello, schema_, std::span(numbers).first(offers_.size()));
}

Established Reception::finish(Client& client) {
    Established established{std::move(client.connection), std::move(client.segments), client.reader.schema()};
    events_.remove(established.connection.socket());
    if (once_) {
        file_.reset();  // before the last word: who has been let in sees the path gone
        clients_.drop_all();
    } else {
        clients_.drop(client);
    }
    send_ready(established.connection.socket());  // should it have died meanwhile, the first use of the bus says so
    for (Segment& segment : established.segments) segment.close_descriptor();
    return established;
}

// ---- for users -------------------------------------------------------------------------------------------------------------

Established listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt) {
    return set_up(
        [&] { return Reception(path, options, Reception::For::one, interrupt).accept(options.deadline, interrupt); });
}

Listener::Listener(const std::string& path, const ListenOptions& options, const Interrupt& interrupt)
    : reception_(set_up([&] { return std::make_unique<Reception>(path, options, Reception::For::many, interrupt); })) {}

Listener::~Listener() = default;

Established Listener::accept(std::uint64_t deadline, const Interrupt& interrupt) {
    return set_up([&] { return reception_->accept(deadline, interrupt); });
}

std::optional<Established> Listener::try_accept() {
    return set_up([&] { return reception_->advance({}); });
}

int Listener::descriptor() const noexcept { return reception_->descriptor(); }
bool Listener::forked() const noexcept { return reception_->forked(); }

}  // namespace tachyon
