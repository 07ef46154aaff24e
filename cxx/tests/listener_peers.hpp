// Purpose: clients for the tests of a Listener. Threads: a Connecting runs one. Lifetime: it ends with its scope.
#pragma once

#include <poll.h>

#include <optional>
#include <string>
#include <thread>

#include "handshake_peers.hpp"
#include "tachyon/listener.hpp"

namespace tachyon::test {

inline ListenOptions many(Kind kind = Kind::bus) {
    ListenOptions options;
    options.kind = kind;
    options.capacities = {kCapacity};
    if (kind == Kind::rpc) options.capacities.push_back(kCapacity);
    return options;
}

inline bool hung_up(int socket) {
    pollfd entry{socket, POLLRDHUP, 0};
    return ::poll(&entry, 1, 0) == 1;
}

// Connects in a thread of its own.
class Connecting {
  public:
    explicit Connecting(const std::string& path, Kind kind = Kind::bus)
        : thread_([this, path, kind] {
              try {
                  ConnectOptions options = connect_options();
                  options.kind = kind;
                  established_ = connect(path, options);
              } catch (const SetupError& error) {
                  error_number_ = error.error_number();
              }
              done_ = true;
          }) {}
    ~Connecting() {
        if (thread_.joinable()) thread_.join();
    }
    Established& join() {
        if (thread_.joinable()) thread_.join();
        REQUIRE(established_);
        return *established_;
    }
    [[nodiscard]] bool done() const { return done_; }
    int error() {
        if (thread_.joinable()) thread_.join();
        return error_number_;
    }

  private:
    std::optional<Established> established_;
    int error_number_ = 0;
    std::atomic<bool> done_{false};
    std::thread thread_;
};

// A client that says a good Hello and then does as it pleases.
inline Descriptor greet(const std::string& path) {
    Descriptor socket = make_stream_socket();
    const sockaddr_un address = make_address(path);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
    const Hello hello = good_hello();
    if (::send(socket.get(), &hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello) return {};
    return socket;
}

}  // namespace tachyon::test
