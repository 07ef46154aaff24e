// Purpose: what listener and connector say to each other before there is a ring, and how they read it. Private to them.
// Threads: as the caller's. Nothing here waits. Lifetime: descriptors that arrive belong to the HelloReader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tachyon/link/handshake.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/shm/segment.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

constexpr std::uint64_t kPatience = 5000 * kMillisecond;        // with a peer that is connected and silent
constexpr std::uint64_t kPatiencePerGiB = 2000 * kMillisecond;  // more, while the connector maps what it was offered

[[noreturn]] void throw_interrupted();
// Milliseconds for poll or EventQueue::wait: until then, but not longer than a slice, rounded up.
int poll_timeout(std::uint64_t until);

const char* kind_name(std::uint16_t kind);
Hello make_hello(Kind kind, bool membarrier);
bool is_ours(const Hello& hello);
Verdict judge(const Hello& hello, Kind kind);
Barrier agreed_barrier(bool ours, const Hello& theirs);

// Both fit into the empty buffer of a fresh socket, so they never wait. False: the peer is gone.
bool send_hello(int socket, const Hello& hello, const std::vector<Segment>& segments);
bool send_ready(int socket);

// Reads one Hello, and the descriptors that come with it, in however many pieces it arrives.
class HelloReader {
  public:
    explicit HelloReader(std::size_t descriptors) : expected_(descriptors) {}

    enum class Progress { more, complete, failed };
    Progress advance(int socket);

    [[nodiscard]] const Hello& hello() const { return hello_; }
    [[nodiscard]] std::vector<Descriptor>& descriptors() { return descriptors_; }
    [[nodiscard]] bool misbehaved() const {
        return descriptors_.size() > expected_ || (truncated_ && descriptors_.size() == expected_);
    }
    // What was passed had no free number to arrive at.
    [[nodiscard]] bool starved() const { return truncated_ && !misbehaved(); }

  private:
    Hello hello_{};
    std::size_t got_ = 0;
    std::size_t expected_;
    bool truncated_ = false;
    std::vector<Descriptor> descriptors_;
};

}  // namespace tachyon
