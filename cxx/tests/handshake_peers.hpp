// Purpose: both sides of a handshake for the tests of it: ours, each in a thread of its own, and raw ones that do as they please.
// Threads: an Aside runs one. Lifetime: it ends, by interrupt, with its scope.
#pragma once

#include <poll.h>
#include <sys/un.h>

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/link/socket_file.hpp"
#include "tachyon/ring/ring_segment.hpp"

namespace tachyon::test {

inline constexpr std::uint64_t kCapacity = 4096;

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
inline std::vector<int> times(int number, std::size_t count) { return std::vector<int>(count, number); }

// ---- either side, in a thread of its own ---------------------------------------------------------------------------------

struct Outcome {
    std::optional<Established> established;
    std::optional<SetupFailure> failure;
    int error_number = 0;
    std::string what;
};

// A listen or connect that runs aside. Ends, by interrupt, with its scope.
class Aside {
  public:
    explicit Aside(std::function<Established(const Interrupt&)> call)
        : thread_([this, call = std::move(call)] {
              const Interrupt interrupt{[](void* flag) { return static_cast<std::atomic<bool>*>(flag)->load(); },
                                        &stop_};
              try {
                  outcome_.established = call(interrupt);
              } catch (const SetupError& error) {
                  outcome_.failure = error.failure();
                  outcome_.error_number = error.error_number();
                  outcome_.what = error.what();
              }
              done_ = true;
          }) {}
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;
    ~Aside() {
        interrupt();
        if (thread_.joinable()) thread_.join();
    }
    void interrupt() { stop_ = true; }
    [[nodiscard]] bool done() const { return done_; }
    Outcome& join() {
        if (thread_.joinable()) thread_.join();
        return outcome_;
    }

  private:
    std::atomic<bool> stop_{false}, done_{false};
    Outcome outcome_;
    std::thread thread_;
};

inline Aside listening(const std::string& path, ListenOptions options = listen_options(kCapacity)) {
    return Aside([=](const Interrupt& interrupt) { return listen(path, options, interrupt); });
}
inline Aside connecting(const std::string& path, ConnectOptions options = connect_options()) {
    return Aside([=](const Interrupt& interrupt) { return connect(path, options, interrupt); });
}

// ---- raw peers -----------------------------------------------------------------------------------------------------------

inline Hello good_hello(Kind kind = Kind::bus) {
    Hello hello{};
    std::memcpy(hello.magic, kHelloMagic.data(), sizeof hello.magic);
    hello.byte_order = kByteOrder;
    hello.version = kHelloVersion;
    hello.oldest = kOldestHello;
    hello.bytes = sizeof hello;
    hello.hello_hash = hello_hash();
    hello.kind = static_cast<std::uint16_t>(kind);
    hello.arrangement = kProtocolVersion;
    hello.arrangement_hash = layout_hash();
    return hello;
}

inline Hello offer(std::uint64_t capacity = kCapacity, std::uint32_t segments = 1, Kind kind = Kind::bus) {
    Hello hello = good_hello(kind);
    hello.segments = segments;
    for (std::uint32_t i = 0; i < segments; ++i) {
        hello.offers[i] = {kHeaderBytes + capacity, capacity, static_cast<std::uint32_t>(Access::read_write), 0};
    }
    return hello;
}

// Bytes, and descriptors with the first of them.
inline bool send_raw(int socket, const void* bytes, std::size_t size, const std::vector<int>& descriptors = {}) {
    iovec part{const_cast<void*>(bytes), size};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 253)] = {};  // the most that the kernel takes
    if (!descriptors.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
        std::memcpy(CMSG_DATA(rights), descriptors.data(), sizeof(int) * descriptors.size());
    }
    return ::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

inline bool readable(int socket, std::uint64_t patience_ms = 20'000) {
    pollfd entry{socket, POLLIN, 0};
    return ::poll(&entry, 1, static_cast<int>(patience_ms)) > 0;
}

// A Hello with its descriptors, or nothing if the peer hangs up instead.
struct Received {
    bool complete = false;
    Hello hello{};
    std::vector<Descriptor> descriptors;
};
inline Received receive_raw(int socket) {
    Received result;
    std::size_t got = 0;
    while (got < sizeof result.hello && readable(socket)) {
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)];
        iovec part{reinterpret_cast<char*>(&result.hello) + got, sizeof result.hello - got};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        if (n <= 0) return result;
        got += static_cast<std::size_t>(n);
        if (const cmsghdr* const rights = CMSG_FIRSTHDR(&message); rights != nullptr) {
            for (std::size_t i = 0; i < (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
                int number = -1;
                std::memcpy(&number, CMSG_DATA(rights) + i * sizeof number, sizeof number);
                result.descriptors.emplace_back(number);
            }
        }
    }
    result.complete = got == sizeof result.hello;
    return result;
}

inline bool hangs_up(int socket) {
    char bytes[256];
    while (readable(socket)) {
        const ssize_t n = ::recv(socket, bytes, sizeof bytes, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
        if (n < 0) return false;
    }
    return false;
}

// A blocking client socket, once somebody listens.
inline Descriptor raw_client(const std::string& path) {
    const sockaddr_un address = make_address(path);
    Descriptor socket;
    const bool connected = eventually([&] {
        socket = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    });
    return connected ? std::move(socket) : Descriptor();
}

inline Descriptor raw_listener(const std::string& path) {
    const sockaddr_un address = make_address(path);
    Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Descriptor();
    if (::listen(socket.get(), 16) != 0) return Descriptor();
    return socket;
}
inline Descriptor raw_accept(const Descriptor& listener) {
    return readable(listener.get()) ? Descriptor(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))
                                    : Descriptor();
}

// A well-behaved client comes, is served, and the memory works in both directions.
inline void check_served(Aside& listener, const std::string& path) {
    Established client = connect(path, connect_options());
    Outcome& outcome = listener.join();
    INFO(outcome.what);
    REQUIRE(outcome.established);
    REQUIRE(outcome.established->segments.size() == client.segments.size());
    header_of(outcome.established->segments[0])->read_position.store(123);
    CHECK(header_of(client.segments[0])->read_position.load() == 123);
    CHECK_FALSE(client.connection.hung_up());
    CHECK_FALSE(exists(path));
}

}  // namespace tachyon::test
