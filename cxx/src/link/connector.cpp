#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "greeting.hpp"
#include "platform/sockets.hpp"
#include "tachyon/error.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/link/socket_file.hpp"

namespace tachyon {
namespace {

// A reason to try again while there is time.
struct NotNow {
    int error_number;
    std::string what;
    std::string advice;  // for who has asked for one try
};

enum class Waited { readable, gone, late };

// For something to read. gone: the peer is, and has said what it will ever say; not all of it may have been read.
Waited wait_for(const Connection& peer, std::uint64_t deadline, const Interrupt& interrupt) {
    for (;;) {
        if (interrupt()) throw_interrupted();
        // Its process too: a child that it forked may hold its socket open.
        std::array<pollfd, 2> entries{{{peer.socket(), POLLIN, 0}, {peer.process(), POLLIN, 0}}};
        const int count = ::poll(entries.data(), entries.size(), poll_timeout(deadline));
        if (count < 0 && errno != EINTR) {
            fail_handshake(errno, std::string("cannot wait for the listener: ") + std::strerror(errno));
        }
        if (entries[0].revents != 0) return Waited::readable;
        if (peer.hung_up()) return Waited::gone;
        if (now_ns() >= deadline) return Waited::late;
    }
}

void pause_for(std::uint64_t duration) {
    const timespec time{0, static_cast<long>(duration)};
    ::nanosleep(&time, nullptr);
}

class Connector {
  public:
    Connector(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt)
        : path_(path),
          options_(options),
          interrupt_(interrupt),
          arrangement_(options.arrangement != nullptr ? *options.arrangement : arrangement_of(options.kind)),
          membarrier_(register_membarrier()),
          hello_(make_hello(arrangement_, membarrier_, options.schema)),
          address_(make_address(path)) {}

    Established run() {
        std::uint64_t pause = kMillisecond / 16;  // both sides are often started at once
        for (;;) {
            try {
                return attempt();
            } catch (const NotNow& reason) {
                if (options_.deadline == 0) fail_handshake(reason.error_number, reason.what + reason.advice);
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
        // A listener that refuses this user says so and hangs up without listening: its answer tells more than this failure.
        if (!send_hello(connection.socket(), hello_, options_.schema) && errno != EPIPE && errno != ECONNRESET) {
            hung_up();
        }
        HelloReader reader(arrangement_.segments, arrangement_.max_schema);
        receive(connection, reader);
        const Hello& theirs = reader.hello();
        check(theirs);
        if (theirs.segments != arrangement_.segments || reader.descriptors().size() != arrangement_.segments) {
            fail_handshake(EPROTO, "the listener at " + path_ + " passed " +
                                       std::to_string(reader.descriptors().size()) + " descriptors, not " +
                                       std::to_string(arrangement_.segments));
        }
        if (!is_offer(theirs)) garbled();
        std::vector<Segment> segments = map(connection, reader);
        connection.set_barrier(agreed_barrier(membarrier_, theirs));
        patience_ = std::max(patience_, now_ns() + kMillisecond * 1000);  // mapping may have used it up
        if (!send_ready(connection.socket())) hung_up();
        receive_ready(connection);
        return {std::move(connection), std::move(segments), reader.schema()};
    }

    // What is offered has to be what the arrangement makes of the capacity, and that no more than was allowed.
    void agree(std::size_t index, const SegmentOffer& offer) const {
        SegmentOffer expected{};
        try {
            expected = arrangement_.describe(index, offer.capacity);
        } catch (const SetupError&) {
            refuse_segment("capacity " + std::to_string(offer.capacity));
        }
        if (offer.capacity > options_.max_capacity) {
            fail_handshake(EFBIG, "the listener at " + path_ + " offers a ring of " + std::to_string(offer.capacity) +
                                      " bytes, more than " + std::to_string(options_.max_capacity) +
                                      "; if you trust it with so much, say so with max_capacity=");
        }
        if (offer != expected) {
            refuse_segment("offered are " + std::to_string(offer.bytes) + " bytes with access " +
                           std::to_string(offer.access) + ", where capacity " + std::to_string(offer.capacity) +
                           " takes " + std::to_string(expected.bytes) + " and " + std::to_string(expected.access));
        }
    }

    // Sizes first: nothing is mapped where one of them is not agreed to.
    std::vector<Segment> map(const Connection& connection, HelloReader& reader) const {
        const std::span<const SegmentOffer> offers(reader.hello().offers, arrangement_.segments);
        std::uint64_t bytes = 0;
        for (std::size_t i = 0; i < offers.size(); ++i) {
            agree(i, offers[i]);
            bytes += offers[i].bytes;
        }
        const bool once = options_.deadline == 0;
        const Patience patience{once ? patience_ + (bytes >> 30) * kPatiencePerGiB : options_.deadline, interrupt_,
                                "the memory of the listener at " + path_ + " was being mapped"};
        std::vector<Segment> segments;
        try {
            for (std::size_t i = 0; i < offers.size(); ++i) {
                segments.push_back(take(std::move(reader.descriptors()[i]), offers[i], patience));
            }
        } catch (const SetupError& error) {
            if (once && error.failure() == SetupFailure::timed_out) fail_handshake(ETIMEDOUT, error.what());
            // A listener that drops a client takes the memory back that it had offered.
            if (error.error_number() == ENODATA && connection.hung_up()) hung_up();
            throw;
        }
        return segments;
    }

    [[nodiscard]] Segment take(Descriptor descriptor, const SegmentOffer& offer, const Patience& patience) const {
        Segment segment = Segment::attach(std::move(descriptor), offer.bytes, static_cast<Access>(offer.access));
        if (const char* const why = arrangement_.refusal(segment, offer); why != nullptr) refuse_segment(why);
        segment.populate(patience);
        segment.close_descriptor();
        return segment;
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
                    throw NotNow{error_number, "the listener at " + path_ + " does not accept anybody", {}};
                }
                if (interrupt_()) throw_interrupted();
                pause_for(kMillisecond);
                continue;
            }
            const std::string why = std::strerror(error_number);
            if (error_number == ENOENT || error_number == ECONNREFUSED) {
                throw NotNow{error_number, "no listener at " + path_ + " (" + why + ")",
                             "; start the listening side first or pass a timeout to wait for it"};
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

    void receive(const Connection& listener, HelloReader& reader) const {
        for (;;) {
            const Waited waited = wait_for(listener, patience_, interrupt_);
            if (waited == Waited::late) silent();
            const auto progress = reader.advance(listener.socket());
            if (progress == HelloReader::Progress::complete) return;
            if (progress == HelloReader::Progress::more && waited == Waited::readable) continue;
            if (reader.misbehaved()) {
                fail_handshake(EPROTO, "the listener at " + path_ + " passed more descriptors than were asked for");
            }
            if (reader.garbled()) garbled();
            if (reader.starved()) {
                fail_descriptor(EMFILE, "cannot take the descriptors from the listener at " + path_);
            }
            hung_up();
        }
    }

    void receive_ready(const Connection& listener) const {
        for (;;) {
            const Waited waited = wait_for(listener, patience_, interrupt_);
            if (waited == Waited::late) silent();
            char byte = 0;
            const ssize_t n = ::recv(listener.socket(), &byte, 1, MSG_DONTWAIT);
            if (n == 1 && byte == kReady) return;
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno == EAGAIN && waited == Waited::readable) continue;
            if (n == 1) fail_handshake(EPROTO, "the listener at " + path_ + " did not end the handshake as it should");
            hung_up();
        }
    }

    void check(const Hello& theirs) const {
        if (!is_ours(theirs)) {
            fail_handshake(EPROTO,
                           "whoever listens at " + path_ + " does not speak this protocol or has another byte order");
        }
        const Verdict ours = judge_prefix(theirs);
        if (ours == Verdict::wrong_version) speaks_another_version(theirs.version, kHelloVersion);
        if (ours == Verdict::wrong_layout) has_another_layout();
        const auto verdict = static_cast<Verdict>(theirs.verdict);
        if (verdict == Verdict::wrong_user) {
            fail_handshake(EACCES, "the listener at " + path_ + " refuses user " + std::to_string(::geteuid()) +
                                       "; let it listen with another mode=");
        }
        switch (judge(theirs, arrangement_)) {
            case Verdict::wrong_version: speaks_another_version(theirs.arrangement, arrangement_.version);
            case Verdict::wrong_layout: has_another_layout();
            case Verdict::wrong_kind:
                fail_handshake(EPROTOTYPE, "a " + std::string(kind_name(theirs.kind)) + " listens at " + path_ +
                                               ", not a " + arrangement_.name + "; use the same class on both sides");
            default: break;
        }
        if (verdict != Verdict::accepted) {
            fail_handshake(EPROTO, "the listener at " + path_ + " refused with code " + std::to_string(theirs.verdict));
        }
    }

    [[noreturn]] void speaks_another_version(std::uint16_t theirs, std::uint16_t ours) const {
        fail_handshake(EPROTONOSUPPORT, "the listener at " + path_ + " speaks protocol version " +
                                            std::to_string(theirs) + ", this side " + std::to_string(ours) +
                                            "; install the same release on both");
    }

    [[noreturn]] void has_another_layout() const {
        fail_handshake(EPROTONOSUPPORT,
                       "the listener at " + path_ + " has another memory layout; install the same release on both");
    }

    [[noreturn]] void garbled() const {
        fail_handshake(EPROTO, "the greeting of the listener at " + path_ + " contradicts itself");
    }

    [[noreturn]] void silent() const {
        const std::string what = "the listener at " + path_ + " accepted the connection but did not answer in time";
        if (options_.deadline != 0) throw SetupError(SetupFailure::timed_out, ETIMEDOUT, what);
        fail_handshake(ETIMEDOUT, what + "; it may be stopped, or not speak this protocol");
    }

    // It chose another client, was interrupted, or died: with time left the next listener may be ours.
    [[noreturn]] void hung_up() const {
        throw NotNow{
            ECONNRESET, "the listener at " + path_ + " hung up during the handshake; it may serve another client", {}};
    }

    const std::string& path_;
    const ConnectOptions& options_;
    const Interrupt& interrupt_;
    const Arrangement& arrangement_;
    const bool membarrier_;
    const Hello hello_;
    const sockaddr_un address_;
    std::uint64_t patience_ = 0;
};

}  // namespace

Established connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt) {
    return set_up([&] { return Connector(path, options, interrupt).run(); });
}

}  // namespace tachyon
