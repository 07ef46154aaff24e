// Purpose: calls and replies: two rings over one connection, matched by correlation_id.
// Threads: one at a time for each ring, as with Bus: a Caller uses both, a Callee uses both.
// Lifetime: a Caller or Callee must not outlive the buses it was made with. A reply's payload is valid until its release.
// Ordering: the rings'; correlation_id is part of the frame, covered by [commit].
//
// The connector calls, the listener serves. Ids start at 1, grow by one per call and are never reused. At most
// kMostCallsInFlight of them are known at a time: of a call that many calls ago, an answer that has not come counts as abandoned.
//
// Replies may come in any order and be waited for in any order. The one waited for is handed over in place; one that comes
// before it is waited for is set aside, its bytes copied, up to kMostBytesSetAside: beyond that the oldest ones are dropped, so
// that callers who never ask for their answers cost a bounded amount of memory.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tachyon/bus.hpp"

namespace tachyon {

inline constexpr std::uint64_t kMostCallsInFlight = 1 << 16;
inline constexpr std::uint64_t kMostBytesSetAside = 64 << 20;  // or one reply, if that is larger
// One look goes through so much at most. A callee may put replies there faster than they are gone through, and whoever looks
// may hold something that others wait for.
inline constexpr std::uint64_t kMostRepliesPerLook = 1024;
inline constexpr std::uint64_t kMostBytesPerLook = 1 << 20;  // and the one reply that goes beyond it
inline constexpr std::uint64_t kGatherEvery = kMillisecond;  // a caller that waits for room looks for replies meanwhile

// One side's ends of the two rings. They close together: [close] of both, then the hang-up.
struct RpcRings {
    std::unique_ptr<Bus> calls;    // connector → listener
    std::unique_ptr<Bus> replies;  // listener → connector
};

// As Bus::listen and Bus::connect; `capacities` are those of calls and replies.
RpcRings listen_rpc(const std::string& path, ListenOptions options, const Interrupt& interrupt = {});
RpcRings connect_rpc(const std::string& path, ConnectOptions options, const Interrupt& interrupt = {});
RpcRings listen_rpc(Descriptor socket, ListenOptions options, const Interrupt& interrupt = {});
RpcRings connect_rpc(Descriptor socket, ConnectOptions options = {}, const Interrupt& interrupt = {});
// Of what a Listener of Kind::rpc accepted, or a Meeting brought about.
RpcRings adopt_rpc(Established established);

// What is known of each of the last kMostCallsInFlight ids. No allocation, no search.
class CallWindow {
  public:
    enum class State : std::uint8_t { none, open, set_aside };

    [[nodiscard]] State state(std::uint64_t id) const noexcept {
        return id != 0 && id <= newest_ && newest_ - id < kMostCallsInFlight ? states_[id % kMostCallsInFlight]
                                                                             : State::none;
    }
    // No effect on ids that are too long ago: their place belongs to another one.
    void set(std::uint64_t id, State state) noexcept {
        if (id <= newest_ && newest_ - id >= kMostCallsInFlight) return;
        newest_ = id > newest_ ? id : newest_;
        states_[id % kMostCallsInFlight] = state;
    }
    [[nodiscard]] std::uint64_t newest() const noexcept { return newest_; }

  private:
    std::array<State, kMostCallsInFlight> states_{};
    std::uint64_t newest_ = 0;
};

class Caller;

// The reply to one call.
class Reply final : public Inlet {
  public:
    Reply(Caller& caller, std::uint64_t id) noexcept;
    Reply(const Reply&) = delete;
    Reply& operator=(const Reply&) = delete;
    [[nodiscard]] Status try_peek(Frame& reply) noexcept override;  // as Caller::try_wait
    void let_go(const Frame& reply) noexcept override;              // of any call of this caller

  private:
    [[nodiscard]] bool look_for_frame(std::uint64_t looks) noexcept override;
    void prepare_for_frame() noexcept override;
    [[nodiscard]] Status sleep_for_frame(std::uint64_t until) noexcept override;
    [[nodiscard]] bool unfinished() const noexcept override;

    Caller& caller_;
    const std::uint64_t id_;
    const std::uint64_t before_;  // what looks had gone past when this was made
};

// As an outlet it sends calls, whose ids last_id() tells; what comes in while it waits for room is set aside.
class Caller : public Outlet {
  public:
    explicit Caller(RpcRings& rings) noexcept : calls_(*rings.calls), replies_(*rings.replies) {}
    virtual ~Caller() = default;

    [[nodiscard]] Status try_send(const void* data, std::uint64_t size, std::uint32_t msg_type) noexcept override {
        std::uint64_t id = 0;
        return try_call(data, size, msg_type, id);
    }
    [[nodiscard]] Status try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept override {
        return calls_.try_claim(size, payload);
    }
    [[nodiscard]] Status commit(std::uint32_t size, std::uint32_t msg_type) noexcept override {
        const std::uint64_t id = next_id();
        const Status status = calls_.commit(size, msg_type, id);
        if (status == Status::ok) called(id);
        return status;
    }
    [[nodiscard]] Status abort() noexcept override { return calls_.abort(); }
    [[nodiscard]] bool is_parcel(std::uint64_t size) const noexcept override { return calls_.is_parcel(size); }
    // Of the last call that was sent; 0 before the first.
    [[nodiscard]] std::uint64_t last_id() const noexcept { return window_.newest(); }

    // For C++: sends a call and, if ok, tells its id; and waits for the reply to it, in place. Statuses as Outlet and Inlet, and unknown_call.
    [[nodiscard]] Status call(std::span<const std::byte> data, std::uint32_t msg_type, std::uint64_t& id,
                              const Waiting& waiting = {}) {
        const Status status = send(data, msg_type, waiting);
        if (status == Status::ok) id = last_id();
        return status;
    }
    [[nodiscard]] Message wait(std::uint64_t id, const Waiting& waiting = {}) {
        Frame frame{};
        const Status status = Reply(*this, id).peek(frame, waiting);
        return {&any_, status, frame};
    }

    // The id that the next call will have. Commit the frame with it, then tell.
    [[nodiscard]] std::uint64_t next_id() const noexcept { return window_.newest() + 1; }
    void called(std::uint64_t id) noexcept;

    // try_send, with the next id. Statuses as Bus::try_send.
    [[nodiscard]] Status try_call(const void* data, std::uint64_t size, std::uint32_t msg_type,
                                  std::uint64_t& id) noexcept {
        id = next_id();
        const Status status = calls_.try_send(data, size, msg_type, id);
        if (status == Status::ok) called(id);
        return status;
    }

    // The reply to `id`: ok, empty, unknown_call, or as Bus::try_peek. Several may be held at a time. Replies to others
    // that are found on the way are set aside, or dropped if nobody can ask for them. After so many of them that it had to stop
    // it is empty too, and unfinished() says so: wait_readable() returns at once then, and the next look goes on.
    [[nodiscard]] Status try_wait(std::uint64_t id, Frame& reply) noexcept;
    // Frees a reply that try_wait handed over, once, in any order; as Bus::release_and_tell.
    void release(const Frame& reply) noexcept;
    // The next reply that somebody may still ask for, in place, whichever call it answers: ok, empty, or as Bus::try_peek. Then
    // take() it, and release it as one of try_wait's, or set_aside(). Others on the way are dropped.
    [[nodiscard]] Status try_next(Frame& reply) noexcept;
    void take(const Frame& reply) noexcept;
    void set_aside(const Frame& reply) noexcept { pass(reply); }
    // Takes replies out of the ring, so that a callee that waits for room goes on: all that are there, or as many as a look
    // goes through.
    void gather() noexcept;
    // The last look stopped before it had seen everything.
    [[nodiscard]] bool unfinished() const noexcept { return unfinished_; }
    // Bytes of ring that looks have gone past. Once they are a whole ring more, everything that was there has been seen.
    [[nodiscard]] std::uint64_t passed() const noexcept { return passed_; }
    // Nobody will ask for it any more: its reply is, or will be, dropped. False: there is no such call.
    bool cancel(std::uint64_t id) noexcept;

    // Calls without an answer yet, as far as they are remembered.
    [[nodiscard]] std::uint64_t in_flight() const noexcept { return in_flight_; }
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }
    [[nodiscard]] std::uint64_t set_aside() const noexcept { return aside_.size(); }

  protected:
    // Replies that come while there is no room for a call. Otherwise a callee that waits for room for them would never come to it.
    virtual void gather_meanwhile() noexcept { gather(); }

  private:
    friend class Reply;

    [[nodiscard]] bool look_for_room(std::uint64_t size, std::uint64_t looks) noexcept override {
        return calls_.spin_writable(size, looks);
    }
    [[nodiscard]] std::uint64_t prepare_for_room(std::uint64_t until) noexcept override;
    [[nodiscard]] Status sleep_for_room(std::uint64_t size, std::uint64_t until) noexcept override {
        return calls_.wait_writable(size, until);
    }

    // A copy of a payload that starts, as in a ring, 16 bytes into a line: what is aligned there is aligned here.
    class Copy {
      public:
        explicit Copy(const Frame& frame)
            : lines_(static_cast<std::uint8_t*>(::operator new(kFrameHeader + frame.size, kAligned))),
              size_(frame.size) {
            std::memcpy(lines_.get() + kFrameHeader, frame.payload, size_);
        }
        [[nodiscard]] const std::uint8_t* data() const noexcept { return lines_.get() + kFrameHeader; }
        [[nodiscard]] std::uint32_t size() const noexcept { return size_; }

      private:
        static constexpr std::align_val_t kAligned{kLine};
        struct Delete {
            void operator()(std::uint8_t* lines) const noexcept { ::operator delete(lines, kAligned); }
        };
        std::unique_ptr<std::uint8_t[], Delete> lines_;
        std::uint32_t size_;
    };
    struct Aside {
        Copy payload;
        std::uint32_t type_id;
        bool held;  // handed over, and not released yet
    };
    static constexpr std::uint64_t kNotInRing = ~std::uint64_t{0};  // position of a reply that was set aside

    void pass(const Frame& reply) noexcept;
    void keep_or_drop(const Frame& reply) noexcept;
    void forget(std::map<std::uint64_t, Aside>::iterator entry) noexcept;

    Bus& calls_;
    Bus& replies_;
    CallWindow window_;
    std::map<std::uint64_t, Aside> aside_;  // by id: the oldest first
    std::uint64_t bytes_aside_ = 0;
    std::uint64_t in_flight_ = 0;
    std::uint64_t dropped_ = 0;
    bool unfinished_ = false;
    std::uint64_t passed_ = 0;
    std::uint64_t gone_through_ = 0;  // the same, with the bytes of parcels
    Reply any_{*this, 0};             // what replies are let go of through
};

class Callee;

// The answer to one call.
class Answer final : public Outlet {
  public:
    Answer(Callee& callee, std::uint64_t id) noexcept : callee_(callee), id_(id) {}
    Answer(const Answer&) = delete;
    Answer& operator=(const Answer&) = delete;
    // Each also unknown_call.
    [[nodiscard]] Status try_send(const void* data, std::uint64_t size, std::uint32_t msg_type) noexcept override;
    [[nodiscard]] Status try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept override;
    [[nodiscard]] Status commit(std::uint32_t size, std::uint32_t msg_type) noexcept override;
    [[nodiscard]] Status abort() noexcept override;
    [[nodiscard]] bool is_parcel(std::uint64_t size) const noexcept override;

  private:
    [[nodiscard]] bool look_for_room(std::uint64_t size, std::uint64_t looks) noexcept override;
    [[nodiscard]] Status sleep_for_room(std::uint64_t size, std::uint64_t until) noexcept override;

    Callee& callee_;
    const std::uint64_t id_;
};

// As an inlet it receives calls; their correlation_id is what to answer with.
class Callee final : public Inlet {
  public:
    [[nodiscard]] Status try_peek(Frame& call) noexcept override { return try_serve(call); }
    void let_go(const Frame& call) noexcept override { calls_.let_go(call); }

    // For C++: waits for a call; and answers one. Statuses as Inlet and Outlet, and unknown_call.
    [[nodiscard]] Message serve(const Waiting& waiting = {}) { return recv(waiting); }
    [[nodiscard]] Status reply(std::uint64_t id, std::span<const std::byte> data, std::uint32_t msg_type = 0,
                               const Waiting& waiting = {}) {
        return Answer(*this, id).send(data, msg_type, waiting);
    }

    explicit Callee(RpcRings& rings) noexcept : calls_(*rings.calls), replies_(*rings.replies) {}

    // The next call, in place; Bus::release it before, or after, replying. Statuses as Bus::try_peek; an id that is not
    // the one after the last is corruption.
    [[nodiscard]] Status try_serve(Frame& call) noexcept;

    // May `id` be replied to? Each call once.
    [[nodiscard]] bool can_reply(std::uint64_t id) const noexcept {
        return window_.state(id) == CallWindow::State::open;
    }
    void replied(std::uint64_t id) noexcept { window_.set(id, CallWindow::State::none); }

    // try_send as the answer to `id`; also unknown_call.
    [[nodiscard]] Status try_reply(std::uint64_t id, const void* data, std::uint64_t size,
                                   std::uint32_t msg_type) noexcept {
        if (!can_reply(id)) return Status::unknown_call;
        const Status status = replies_.try_send(data, size, msg_type, id);
        if (status == Status::ok) replied(id);
        return status;
    }

  private:
    friend class Answer;

    [[nodiscard]] bool look_for_frame(std::uint64_t looks) noexcept override { return calls_.spin_readable(looks); }
    void prepare_for_frame() noexcept override { calls_.prepare_wait(); }
    [[nodiscard]] Status sleep_for_frame(std::uint64_t until) noexcept override { return calls_.wait_beside(until); }

    Bus& calls_;
    Bus& replies_;
    CallWindow window_;
};

}  // namespace tachyon
