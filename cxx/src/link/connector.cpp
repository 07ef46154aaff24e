#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "greeting.hpp"
#include "offer.hpp"
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
          address_(make_address(path)),
          offer_("the listener at " + path, "listens at " + path, options) {}

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
        if (!offer_.ask(connection.socket()) && errno != EPIPE && errno != ECONNRESET) hung_up();
        HelloReader reader = offer_.reader();
        receive(connection, reader);
        offer_.check(reader);
        std::vector<Segment> segments = map(connection, reader);
        offer_.settle(connection, reader.hello());
        patience_ = std::max(patience_, now_ns() + kMillisecond * 1000);  // mapping may have used it up
        if (!send_ready(connection.socket())) hung_up();
        receive_ready(connection);
        return {std::move(connection), std::move(segments), reader.schema()};
    }

    std::vector<Segment> map(const Connection& connection, HelloReader& reader) const {
        const bool once = options_.deadline == 0;
        const std::uint64_t bytes = offer_.bytes(reader.hello());
        const Patience patience{once ? patience_ + (bytes >> 30) * kPatiencePerGiB : options_.deadline, interrupt_,
                                "the memory of the listener at " + path_ + " was being mapped"};
        try {
            return offer_.map(reader, patience);
        } catch (const SetupError& error) {
            if (once && error.failure() == SetupFailure::timed_out) fail_handshake(ETIMEDOUT, error.what());
            // A listener that drops a client takes the memory back that it had offered.
            if (error.error_number() == ENODATA && connection.hung_up()) hung_up();
            throw;
        }
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
            offer_.explain(reader);
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
            if (n == 1) offer_.fail_to_end();
            hung_up();
        }
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
    const sockaddr_un address_;
    const Offer offer_;
    std::uint64_t patience_ = 0;
};

}  // namespace

Established connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt) {
    return set_up([&] { return Connector(path, options, interrupt).run(); });
}

}  // namespace tachyon
