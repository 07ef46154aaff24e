// Purpose: what listener and connector say to each other before there is a ring, and how they read it. Private to them.
// Threads: as the caller's. Nothing here waits. Lifetime: descriptors that arrive belong to the HelloReader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/sockets.hpp"
#include "tachyon/link/arrangement.hpp"
#include "tachyon/link/descriptor.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/link/hello.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

constexpr std::uint64_t kPatience = 5000 * kMillisecond;        // with a peer that is connected and silent
constexpr std::uint64_t kPatiencePerGiB = 2000 * kMillisecond;  // more, while the connector maps what it was offered

[[noreturn]] void throw_interrupted();
// Milliseconds for poll or EventQueue::wait: until then, but not longer than a slice, rounded up.
int poll_timeout(std::uint64_t until);

const char* kind_name(std::uint16_t kind);

// What this side is able to do, for its hello. SetupError (capacity): of max_large.
std::uint32_t make_abilities(bool membarrier, std::uint64_t max_large);
// SetupError (handshake): more than this kind says.
Hello make_hello(const Arrangement& arrangement, std::uint32_t abilities, std::string_view schema);

bool is_ours(const Hello& hello);
// By what is the same in every version: wrong_version, wrong_layout, or accepted. Only then the rest means anything.
Verdict judge_prefix(const Hello& hello);
// Of a hello that is ours.
Verdict judge(const Hello& hello, const Arrangement& arrangement);
// Does a connector's say nothing that only a listener says?
bool is_request(const Hello& hello);
// Is nothing offered beyond the segments that there are?
bool is_offer(const Hello& hello);
// By what both hellos say, sets the connection's barrier and max_large.
void settle(Connection& connection, std::uint32_t ours, std::uint32_t theirs);

// Both fit into the empty buffer of a fresh socket, so they never wait. False: the peer is gone.
bool send_hello(int socket, const Hello& hello, std::string_view schema, std::span<const int> descriptors = {});
bool send_ready(int socket);

// Some bytes in one piece, and descriptors, at most kMaxSegments + 1. False: see errno. Looking leaves them where they are: how many bytes, or
// -1 and an errno, EMFILE if there were not enough numbers free.
bool send_with(int socket, std::span<const std::byte> data, std::span<const int> descriptors);
ssize_t peek_with(int socket, std::span<std::byte> data, std::vector<Descriptor>& descriptors);

// Reads one Hello, and the descriptors that come with it, in however many pieces it arrives. Of one in a version or layout that we
// do not know it reads the prefix only: the rest could be anything.
class HelloReader {
  public:
    explicit HelloReader(std::size_t descriptors, std::size_t schema) : expected_(descriptors), max_schema_(schema) {}

    enum class Progress { more, complete, failed };
    Progress advance(int socket);

    [[nodiscard]] const Hello& hello() const { return hello_; }
    [[nodiscard]] std::string schema() const { return rest_.substr(rest_.size() - hello_.schema_bytes); }
    [[nodiscard]] std::vector<Descriptor>& descriptors() { return descriptors_; }
    [[nodiscard]] bool misbehaved() const {
        return descriptors_.size() > expected_ || (truncated_ && descriptors_.size() == expected_);
    }
    [[nodiscard]] const Sender& sender() const { return sender_; }  // of the last piece, where one was asked for
    // What was passed had no free number to arrive at.
    [[nodiscard]] bool starved() const { return truncated_ && !misbehaved(); }
    // Its lengths contradict each other, or the bounds.
    [[nodiscard]] bool garbled() const { return garbled_; }

  private:
    [[nodiscard]] bool only_prefix() const;
    [[nodiscard]] bool lengths_are_right() const;
    [[nodiscard]] std::span<char> wanted();

    Hello hello_{};
    std::string rest_;  // what a later version appends, and the schema
    std::size_t got_ = 0;
    std::size_t expected_;
    std::size_t max_schema_;
    bool truncated_ = false;
    bool garbled_ = false;
    std::vector<Descriptor> descriptors_;
    Sender sender_;
};

// What follows a hello: kReady, or 0 for any other byte. Nothing: see errno, or 0 if the peer is gone.
std::optional<char> receive_ready(int socket, Sender& sender);

}  // namespace tachyon
