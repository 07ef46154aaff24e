// Purpose: one way to receive. A Bus, the reply to a call, and the calls of a callee are inlets: each says how one message is
//   looked for; waiting, copying, the RAII frame and the range of messages are here once for all of them.
// Threads: one at a time, as the bus behind it.
// Lifetime: an inlet must not outlive what it receives from; a Message must not outlive its inlet.
// Ordering: the ring's.
//
// Statuses of all: ok, wrong_side, peer_closed, peer_aborted, peer_dead (the last three once everything has been handed out),
// corrupt, closed, forked. The tries also empty; the waiting forms empty when the time is over, and interrupted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "tachyon/error.hpp"
#include "tachyon/port/outlet.hpp"
#include "tachyon/ring/ring.hpp"

namespace tachyon {

class Inlet;

// A message in place; released when it goes. Several may be held, and go in any order.
class Message {
  public:
    Message(Inlet* inlet, Status status, const Frame& frame) noexcept
        : inlet_(status == Status::ok ? inlet : nullptr), status_(status), frame_(frame) {}
    Message(Message&& other) noexcept
        : inlet_(std::exchange(other.inlet_, nullptr)), status_(other.status_), frame_(other.frame_) {}
    Message& operator=(Message&& other) noexcept {
        if (this != &other) {
            release();
            inlet_ = std::exchange(other.inlet_, nullptr);
            status_ = other.status_;
            frame_ = other.frame_;
        }
        return *this;
    }
    Message(const Message&) = delete;
    Message& operator=(const Message&) = delete;
    ~Message() { release(); }

    explicit operator bool() const noexcept { return inlet_ != nullptr; }
    [[nodiscard]] Status status() const noexcept { return status_; }  // why there is none
    [[nodiscard]] std::span<const std::byte> data() const noexcept {
        return {reinterpret_cast<const std::byte*>(frame_.payload), inlet_ != nullptr ? frame_.size : 0};
    }
    [[nodiscard]] std::string_view text() const noexcept {
        return {reinterpret_cast<const char*>(frame_.payload), inlet_ != nullptr ? frame_.size : 0};
    }
    [[nodiscard]] std::uint32_t type_id() const noexcept { return frame_.type_id; }  // of a call or reply: msg_type
    [[nodiscard]] std::uint64_t correlation_id() const noexcept { return frame_.correlation_id; }
    inline void release() noexcept;

  private:
    Inlet* inlet_;
    Status status_;
    Frame frame_;
};

class Messages;

class Inlet {
  public:
    Inlet(const Inlet&) = delete;
    Inlet& operator=(const Inlet&) = delete;

    // The next message in place, held until let_go.
    [[nodiscard]] virtual Status try_peek(Frame& frame) noexcept = 0;
    // Releases it, and tells the producer at once where no other message is there yet.
    virtual void let_go(const Frame& frame) noexcept = 0;

    // Waits for the next message.
    [[nodiscard]] Status peek(Frame& frame, const Waiting& waiting);
    [[nodiscard]] Message recv(const Waiting& waiting = {}) {
        Frame frame{};
        const Status status = peek(frame, waiting);
        return {this, status, frame};
    }
    [[nodiscard]] Message try_recv() noexcept {
        Frame frame{};
        const Status status = try_peek(frame);
        return {this, status, frame};
    }
    // for (const Message& message : bus.messages()): until there is none any more, or the time for all of them is over; then
    // messages.status() says why.
    [[nodiscard]] inline Messages messages(const Waiting& waiting = {});

    // The payload of a frame; a host is unlocked for a large one.
    static void copy_out(void* to, const Frame& frame, const Host& host);

  protected:
    Inlet() = default;
    ~Inlet() = default;

    // For a wait: see detail::persist.
    [[nodiscard]] virtual bool look_for_frame(std::uint64_t looks) noexcept = 0;
    virtual void prepare_for_frame() noexcept = 0;
    [[nodiscard]] virtual Status sleep_for_frame(std::uint64_t until) noexcept = 0;
    [[nodiscard]] virtual bool unfinished() const noexcept { return false; }
};

inline void Message::release() noexcept {
    if (Inlet* const inlet = std::exchange(inlet_, nullptr)) inlet->let_go(frame_);
}

// The messages that come, one at a time: each is released before the next one is waited for.
class Messages {
  public:
    Messages(Inlet& inlet, const Waiting& waiting) noexcept
        : inlet_(inlet), waiting_(waiting), now_(nullptr, Status::ok, {}) {}

    struct End {};
    class Iterator {
      public:
        explicit Iterator(Messages& messages) : messages_(messages) { ++*this; }
        const Message& operator*() const noexcept { return messages_.now_; }
        Iterator& operator++() {
            messages_.now_.release();
            messages_.now_ = messages_.inlet_.recv(messages_.waiting_);
            return *this;
        }
        bool operator!=(End) const noexcept { return static_cast<bool>(messages_.now_); }

      private:
        Messages& messages_;
    };
    Iterator begin() { return Iterator(*this); }
    [[nodiscard]] End end() const noexcept { return {}; }
    // Why there are no more: peer_closed is the end of a whole stream.
    [[nodiscard]] Status status() const noexcept { return now_.status(); }

  private:
    Inlet& inlet_;
    Waiting waiting_;
    Message now_;
};

inline Messages Inlet::messages(const Waiting& waiting) { return {*this, waiting}; }

}  // namespace tachyon
