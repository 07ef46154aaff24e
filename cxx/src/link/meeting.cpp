#include "tachyon/link/meeting.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <string>
#include <utility>

#include "greeting.hpp"
#include "offer.hpp"
#include "platform/sockets.hpp"
#include "tachyon/error.hpp"

namespace tachyon {
namespace {

constexpr const char* kOther = "the process at the other end";

[[noreturn]] void nobody_there() {
    fail_handshake(
        ECONNRESET,
        "nobody holds the other end any more: it was closed or dropped, or its process ended, before both were in use");
}

}  // namespace

// What both sides do: read a hello, answer it, read the byte that ends it.
class Meeting::Half {
  public:
    Half(Descriptor socket, Side side, HelloReader reader)
        : connection_(std::move(socket), side), reader_(std::move(reader)) {
        ask_for_senders(connection_.socket(), true);
    }
    Half(const Half&) = delete;
    Half& operator=(const Half&) = delete;
    virtual ~Half() = default;

    std::optional<Established> advance(const Patience& patience) {
        if (forked()) fail_handshake(EBADF, "this end belongs to the parent of this process");
        begin();
        if (!greeted_ && !read_hello(patience)) return std::nullopt;
        if (!read_ready()) return std::nullopt;
        end();
        ask_for_senders(connection_.socket(), false);
        return Established{std::move(connection_), std::move(segments_), reader_.schema()};
    }

    // For something to do.
    void wait(std::uint64_t until) const noexcept {
        std::array<pollfd, 2> entries{
            {{connection_.socket(), POLLIN, 0}, {greeted_ ? connection_.process() : -1, POLLIN, 0}}};
        ::poll(entries.data(), entries.size(), poll_timeout(until));
    }

    [[nodiscard]] int socket() const noexcept { return connection_.socket(); }
    [[nodiscard]] bool forked() const noexcept { return connection_.socket() < 0; }

  protected:
    virtual void begin() {}            // before anything else, again and again
    virtual void explain() const = 0;  // why there is no hello
    virtual void check() = 0;          // one that is there; who sent it may have said why, and gone
    virtual void answer(const Patience& patience) = 0;
    virtual void end() {}  // the other side is ready

    Connection connection_;
    HelloReader reader_;
    std::vector<Segment> segments_;

  private:
    bool read_hello(const Patience& patience) {
        switch (reader_.advance(connection_.socket())) {
            case HelloReader::Progress::more: expect_somebody(); return false;
            case HelloReader::Progress::failed: explain(); nobody_there();
            case HelloReader::Progress::complete: break;
        }
        // From here on the peer is who sent this. It cannot be another process that got its number meanwhile: read_ready() hears
        // from the same number once more, after this look at it.
        check();
        connection_.recognize(reader_.sender());
        answer(patience);
        greeted_ = true;
        return true;
    }

    bool read_ready() {
        Sender sender;
        const auto byte = receive_ready(connection_.socket(), sender);
        if (byte && *byte == kReady && sender.pid == reader_.sender().pid) return true;
        if (byte) fail_handshake(EPROTO, std::string(kOther) + " did not end the handshake as it should");
        if ((errno != EAGAIN && errno != EINTR) || connection_.hung_up()) nobody_there();
        return false;
    }

    // A hang-up is read as one. While any copy of the other socket is open, somebody may still come; but copies that only forked children of the maker have,
    // unknowingly, are not to keep this side waiting for ever once the maker has died.
    void expect_somebody() {
        if (!connection_.hung_up()) return;
        const std::uint64_t now = now_ns();
        if (orphaned_ == 0) orphaned_ = now;
        if (now - orphaned_ >= kPatience) {
            fail_handshake(ECONNRESET,
                           "the process that made this end has died, and nobody came to the other one within 5 s");
        }
    }

    bool greeted_ = false;
    std::uint64_t orphaned_ = 0;
};

class Meeting::ListeningHalf final : public Half {
  public:
    ListeningHalf(Descriptor socket, ListenOptions options, std::vector<Segment> memory)
        : Half(std::move(socket), Side::listener, HelloReader(0, arrangement_of(options).max_schema)),
          options_(std::move(options)),
          arrangement_(arrangement_of(options_)),
          offers_(describe_offers(arrangement_, options_.capacities)),
          hello_(make_hello(arrangement_, make_abilities(register_membarrier(), options_.max_large), options_.schema)) {
        segments_ = std::move(memory);
    }

  private:
    static const Arrangement& arrangement_of(const ListenOptions& options) {
        return options.arrangement != nullptr ? *options.arrangement : tachyon::arrangement_of(options.kind);
    }

    void explain() const override {
        if (reader_.garbled() || reader_.misbehaved()) no_greeting();
    }
    [[noreturn]] static void no_greeting() {
        fail_handshake(EPROTO, std::string(kOther) + " does not speak this protocol");
    }

    void check() override {
        const Hello& theirs = reader_.hello();
        if (!is_ours(theirs)) no_greeting();
        const Verdict verdict = judge(theirs, arrangement_);
        if (verdict != Verdict::accepted) reject(verdict);
        if (!is_request(theirs)) no_greeting();
    }

    void answer(const Patience& patience) override {
        provide(patience);
        settle(connection_, hello_.abilities, reader_.hello().abilities);
        Hello hello = hello_;
        hello.segments = static_cast<std::uint32_t>(offers_.size());
        std::ranges::copy(offers_, hello.offers);
        std::vector<Descriptor> shared = share_for_reading(segments_, offers_);
        std::array<int, kMaxSegments> numbers{};
        for (std::size_t i = 0; i < offers_.size(); ++i) {
            numbers[i] = shared[i] ? shared[i].get() : segments_[i].descriptor();
        }
        if (!send_hello(connection_.socket(), hello, options_.schema, std::span(numbers).first(offers_.size()))) {
            nobody_there();
        }
    }

    void provide(const Patience& patience) {
        if (segments_.empty()) {
            segments_ = make_segments(arrangement_, offers_, patience);
            return;
        }
        for (std::size_t i = 0; i < segments_.size(); ++i) {
            segments_[i].populate(patience);
            arrangement_.arrange(segments_[i], offers_[i]);
        }
    }

    [[noreturn]] void reject(Verdict verdict) {
        Hello hello = hello_;
        hello.verdict = static_cast<std::uint32_t>(verdict);
        send_hello(connection_.socket(), hello, options_.schema);
        if (verdict == Verdict::wrong_kind) {
            fail_handshake(EPROTOTYPE, std::string("a ") + kind_name(reader_.hello().kind) +
                                           " is at the other end, not a " + arrangement_.name +
                                           "; use the same class on both sides");
        }
        fail_handshake(EPROTONOSUPPORT,
                       std::string(kOther) + " is of another release; install the same one on both sides");
    }

    void end() override {
        send_ready(connection_.socket());  // should it have died meanwhile, the first use of the bus says so
        for (Segment& segment : segments_) segment.close_descriptor();
    }

    const ListenOptions options_;
    const Arrangement& arrangement_;
    const std::vector<SegmentOffer> offers_;
    const Hello hello_;
};

class Meeting::ConnectingHalf final : public Half {
  public:
    ConnectingHalf(Descriptor socket, ConnectOptions options)
        : ConnectingHalf(std::move(socket), std::make_unique<const ConnectOptions>(std::move(options))) {}

  private:
    ConnectingHalf(Descriptor socket, std::unique_ptr<const ConnectOptions> options)
        : ConnectingHalf(std::move(socket), Offer(kOther, "is at the other end", *options), options) {}
    ConnectingHalf(Descriptor socket, const Offer& offer, std::unique_ptr<const ConnectOptions>& options)
        : Half(std::move(socket), Side::connector, offer.reader()), options_(std::move(options)), offer_(offer) {}

    void begin() override {
        // One that has failed already has said why, and hung up.
        if (!asked_ && !offer_.ask(connection_.socket()) && errno != EPIPE && errno != ECONNRESET) nobody_there();
        asked_ = true;
    }
    void explain() const override { offer_.explain(reader_); }
    void check() override { offer_.check(reader_); }
    void answer(const Patience& patience) override {
        segments_ = offer_.map(reader_, patience);
        offer_.settle(connection_, reader_.hello());
        if (!send_ready(connection_.socket())) nobody_there();
    }

    const std::unique_ptr<const ConnectOptions> options_;
    const Offer offer_;
    bool asked_ = false;
};

// ---- ---------------------------------------------------------------------------------------------------------------------

Meeting::Meeting(Descriptor socket, ListenOptions options, std::vector<Segment> memory)
    : half_(set_up(
          [&] { return std::make_unique<ListeningHalf>(std::move(socket), std::move(options), std::move(memory)); })) {}

Meeting::Meeting(Descriptor socket, ConnectOptions options)
    : half_(set_up([&] { return std::make_unique<ConnectingHalf>(std::move(socket), std::move(options)); })) {}

Meeting::~Meeting() = default;

std::optional<Established> Meeting::advance(const Interrupt& interrupt) {
    if (!half_) fail_handshake(EBADF, "this meeting is over");
    try {
        auto established = set_up([&] { return half_->advance({kNever, interrupt, {}}); });
        if (established) half_.reset();
        return established;
    } catch (const SetupError&) {
        half_.reset();
        throw;
    }
}

Established Meeting::meet(std::uint64_t deadline, const Interrupt& interrupt) {
    for (;;) {
        if (auto established = advance(interrupt)) return std::move(*established);
        if (interrupt()) throw_interrupted();
        if (now_ns() >= deadline) {
            throw SetupError(SetupFailure::timed_out, ETIMEDOUT, "nobody came to the other end within the timeout");
        }
        half_->wait(deadline);
    }
}

int Meeting::descriptor() const noexcept { return half_ ? half_->socket() : -1; }
bool Meeting::forked() const noexcept { return half_ && half_->forked(); }

}  // namespace tachyon
