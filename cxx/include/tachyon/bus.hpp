// Purpose: one direction, whole: a segment, the ring over it, waiting, and the life of the peer.
// Threads: one at a time, like the ring; only request_close() may be called by another thread while one waits. Beside
//   wait_beside() another thread may release frames, if something else (the GIL) keeps it out while the waiter does not wait.
// Lifetime: payloads of frames and claims are valid until they are given back, and in any case only as long as the Bus lives:
//   close() ends the conversation but keeps the mapping.
// Ordering: the ring's and wait.hpp's, and one more pair:
//   [close]  last commit → closed (release)   pairs with   closed (acquire) → one more look at the ring
//   [unblock] clears of a release → blocked_ = false (release)   pairs with   blocked_ (acquire) → the word at the cursor
//
// Either side may turn out to be the producer: the first send decides ([role] in docs/memory-model.md).
//
// A message of more than max_message_size() bytes, up to max_large_size(), goes in a parcel: memory of its own, whose descriptor is
// passed over the socket before a line of the ring announces it. All of that stands in the branches that are not the usual one.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "tachyon/error.hpp"
#include "tachyon/link/fork.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/link/meeting.hpp"
#include "tachyon/parcels.hpp"
#include "tachyon/port/inlet.hpp"
#include "tachyon/port/outlet.hpp"
#include "tachyon/port/waiting.hpp"
#include "tachyon/ring/early_releases.hpp"
#include "tachyon/ring/ring.hpp"
#include "tachyon/ring/ring_segment.hpp"
#include "tachyon/ring/stats.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

class Bus final : public Outlet, public Inlet {
  public:
    // Both block until the handshake is done; SetupError.
    static std::unique_ptr<Bus> listen(const std::string& path, const ListenOptions& options,
                                       const Interrupt& interrupt = {});
    static std::unique_ptr<Bus> connect(const std::string& path, const ConnectOptions& options,
                                        const Interrupt& interrupt = {});
    // Over a socket that is connected already: one of a pair, whoever made it. A deadline of 0 is none here.
    static std::unique_ptr<Bus> listen(Descriptor socket, const ListenOptions& options,
                                       const Interrupt& interrupt = {});
    static std::unique_ptr<Bus> connect(Descriptor socket, const ConnectOptions& options = {},
                                        const Interrupt& interrupt = {});
    // Of what a Listener of Kind::bus accepted, or a Meeting brought about. `producer`: who sends, where that is fixed on both sides.
    static std::unique_ptr<Bus> adopt(Established established, Side producer = Side::undecided);

    Bus(Connection connection, RingSegment segment)
        : Bus(std::make_shared<Connection>(std::move(connection)), std::move(segment)) {}
    // A ring with fixed roles where `producer` says who sends; several may share one connection.
    Bus(std::shared_ptr<Connection> connection, RingSegment segment, Side producer = Side::undecided);
    Bus(const Bus&) = delete;
    Bus& operator=(const Bus&) = delete;
    ~Bus();  // closes; where an exception is on its way through, as End::aborted

    // ---- producer: ok, full, too_large, wrong_side, claim_open, peer_closed, peer_dead, corrupt, closed, forked; no_memory for
    // what does not fit the ring ----

    // ok: the message is visible to the peer. peer_closed: it was not sent. peer_dead: nobody will read it, nor any later one.
    // A clean close is seen at once; a death by the first send that begins a tick of the kernel (1 … 10 ms) after it, at the latest.
    // The look for a death comes after the commit, where it does not delay the message.
    [[nodiscard]] Status try_send(const void* data, std::uint64_t size, std::uint32_t type_id) noexcept override {
        return try_send(data, size, type_id, 0);
    }
    [[nodiscard]] Status try_send(const void* data, std::uint64_t size, std::uint32_t type_id,
                                  std::uint64_t correlation_id) noexcept {
        if (const Status status = begin_send(size); status != Status::ok) [[unlikely]]
            return send_parcel(status, {data, size, type_id, correlation_id}, Wake::now);
        if (!producer_.try_send(data, static_cast<std::uint32_t>(size), type_id, correlation_id)) [[unlikely]]
            return no_room(size);
        return after_send();
    }

    // try_send without the look for a parked consumer: wake_consumer() is owed, before any wait and after the last one.
    [[nodiscard]] Status try_send_quietly(const void* data, std::uint64_t size, std::uint32_t type_id) noexcept {
        if (const Status status = begin_send(size); status != Status::ok) [[unlikely]]
            return send_parcel(status, {data, size, type_id, 0}, Wake::later);
        if (!producer_.try_send<Wake::later>(data, static_cast<std::uint32_t>(size), type_id)) [[unlikely]]
            return no_room(size);
        return after_send();
    }
    void wake_consumer() noexcept {
        if (mode_.load(std::memory_order_relaxed) == Mode::producer) producer_.wake_consumer();
    }

    // Waits for room: Outlet's, with the first try in place.
    [[nodiscard]] Status send(const void* data, std::uint64_t size, std::uint32_t type_id, const Waiting& waiting) {
        if (size < kLargeCopy) [[likely]] {
            if (const Status status = try_send(data, size, type_id, 0); status != Status::full) [[likely]]
                return status;
        }
        return Outlet::send(data, size, type_id, waiting);
    }
    [[nodiscard]] Status send(std::span<const std::byte> data, std::uint32_t type_id = 0, const Waiting& waiting = {}) {
        return send(data.data(), data.size(), type_id, waiting);
    }

    [[nodiscard]] Status try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept override {
        if (const Status status = begin_send(size); status != Status::ok) [[unlikely]]
            return claim_parcel(status, size, payload);
        payload = producer_.try_claim(size);
        if (payload == nullptr) return no_room(size);
        claim_end_ = size + 1;
        return Status::ok;
    }
    [[nodiscard]] Status commit(std::uint32_t size, std::uint32_t type_id) noexcept override {
        return commit(size, type_id, 0);
    }
    template <Wake kWake = Wake::now>
    [[nodiscard]] Status commit(std::uint32_t size, std::uint32_t type_id, std::uint64_t correlation_id) noexcept {
        // A close is told before a commit, never after.
        if (mode_.load(std::memory_order_relaxed) != Mode::producer || !producer_.claim_open() || size >= claim_end_ ||
            peer_said_closed()) [[unlikely]]
            return commit_unusually({nullptr, size, type_id, correlation_id}, kWake);
        producer_.commit<kWake>(size, type_id, correlation_id);
        return after_send();
    }
    [[nodiscard]] Status abort() noexcept override;

    // Has the consumer let go of everything committed so far? ok, full (not yet), peer_closed, peer_aborted, peer_dead, …
    [[nodiscard]] Status check_read() noexcept;
    // Until it has: as check_read, or interrupted; waits as wait_writable does.
    [[nodiscard]] Status wait_read(std::uint64_t until) noexcept;
    [[nodiscard]] Status wait_read(const Waiting& waiting);  // however long it takes; full when the time is over

    // The end of the stream, as close() tells it, but this side stays to see how the consumer leaves. Sends say closed from now on.
    [[nodiscard]] Status finish() noexcept;
    // After finish(): ok once the consumer has read everything and closed; full: it has not left yet; peer_closed: it left
    // something unread; peer_aborted, peer_dead.
    [[nodiscard]] Status check_left() noexcept;
    [[nodiscard]] Status wait_left(std::uint64_t until) noexcept;
    [[nodiscard]] Status wait_left(const Waiting& waiting);

    // Until there may be room for `size` bytes: ok, full (look at the clock and at signals, then wait on), interrupted, or how
    // it ended. Spins, then sleeps, for at most one slice of 50 ms, and not past `until` (now_ns() scale).
    [[nodiscard]] Status wait_writable(std::uint64_t size, std::uint64_t until) noexcept;

    // ---- consumer: ok, empty, wrong_side, peer_closed, peer_dead, corrupt, closed, forked ----

    // peer_closed and peer_dead only once everything that was committed has been handed out.
    [[nodiscard]] Status try_peek(Frame& frame) noexcept override {
        if (mode_.load(std::memory_order_relaxed) != Mode::consumer) [[unlikely]] {
            const Status status = begin_receive();
            if (status == Status::empty) return nothing_to_peek(status, frame);
            if (status != Status::ok) return status;
        }
        const Status status = consumer_.peek(frame);
        return status == Status::ok ? status : nothing_to_peek(status, frame);
    }
    // Bytes of ring that a frame which try_peek has handed out takes: of a parcel, those of the line that announced it.
    [[nodiscard]] std::uint64_t ring_bytes(const Frame& frame) const noexcept {
        return parcels_.received.find(frame.position) != nullptr ? kLine : frame_size(frame.size);
    }
    // In any order; the ring frees in order behind the oldest that is held. Each frame once, as it was peeked. After close()
    // there is nothing to give back: closed, which is no failure. claim_open: no memory to remember that it came before its
    // turn, unless expect_held() had seen to that; release the older ones first.
    Status release(const Frame& frame) noexcept {
        if (mode_.load(std::memory_order_relaxed) != Mode::consumer) [[unlikely]]
            return release_at_end(frame);
        if (unusual_.load(std::memory_order_relaxed) || consumer_.held() == 0 || frame.position != consumer_.oldest())
            [[unlikely]]
            return release_among_others(frame);
        consumer_.release(frame);
        return Status::ok;
    }
    // release, and where no other message is there yet the producer is told at once: for callers who may not look again soon, or
    // beside whom another thread waits.
    Status release_and_tell(const Frame& frame) noexcept {
        const Status status = release(frame);
        if (!frame_seen()) hand_back();
        return status;
    }
    void let_go(const Frame& frame) noexcept override { (void)release_and_tell(frame); }
    // Waits for a message: Inlet's, with the first try in place.
    [[nodiscard]] Status peek(Frame& frame, const Waiting& waiting) {
        const Status status = try_peek(frame);
        return status != Status::empty ? status : Inlet::peek(frame, waiting);
    }
    [[nodiscard]] Message recv(const Waiting& waiting = {}) {
        Frame frame{};
        const Status status = peek(frame, waiting);
        return {this, status, frame};
    }
    // So many frames will be held at a time: makes room to remember those that are released before their turn. False: no memory.
    [[nodiscard]] bool expect_held(std::size_t count) noexcept { return early_.expect(count); }
    // Undoes the last try_peek, for a caller that cannot take the message now.
    void put_back(const Frame& frame) noexcept {
        if (mode_.load(std::memory_order_relaxed) == Mode::consumer && consumer_.held() != 0) consumer_.put_back(frame);
    }
    // Tells the producer of every frame released so far, without waiting for more of them to gather.
    void hand_back() noexcept {
        if (mode_.load(std::memory_order_relaxed) == Mode::consumer) consumer_.hand_back();
    }

    // As wait_writable; `empty` where that says full.
    [[nodiscard]] Status wait_readable(std::uint64_t until) noexcept {
        prepare_wait();
        return wait_beside(until);
    }
    // The same in two steps, for a thread beside which another one may release frames: the first while that one is kept out.
    void prepare_wait() noexcept;
    [[nodiscard]] Status wait_beside(std::uint64_t until) noexcept;

    // A few looks without sleeping, for callers that hold something others may want (the GIL). Touches no state. Without the GIL:
    // after prepare_wait().
    [[nodiscard]] bool spin_readable(std::uint64_t looks) const noexcept {
        for (; looks > 0; --looks, cpu_relax()) {
            if (frame_seen()) return true;
        }
        return false;
    }
    [[nodiscard]] bool spin_writable(std::uint64_t size, std::uint64_t looks) noexcept {
        for (; looks > 0; --looks, cpu_relax()) {
            if (can_advance(size)) return true;
        }
        return false;
    }

    // ---- for loops that wait for other things too: see docs/asyncio.md ----

    // Readable when a try may help after arm(), or the peer is gone. Made by the first call, gone with close(). SetupError.
    [[nodiscard]] int descriptor() { return connection_->bell(); }
    // True: there is nothing now, and the descriptor will tell: of a frame, or of what the last send, check_read or check_left
    // lacked. False: try again, now. Spins as a wait does before it parks, 50 µs at most. SetupError as descriptor().
    [[nodiscard]] bool arm(bool for_room);
    // Once the descriptor is readable, before the next try: silences it. False: the peer is gone, and nothing silences it.
    bool disarm();

    // ---- for a WaitSet, which waits for many at once ----

    // Would try_peek say anything but empty? Like that, an empty ring hands back what has been freed.
    [[nodiscard]] bool readable_now() noexcept {
        if (consumer_.has_frame()) return true;
        consumer_.hand_back();
        return over();
    }
    // Would try_send of `size` bytes say anything but full?
    [[nodiscard]] bool writable_now(std::uint64_t size) noexcept { return can_advance(size) || over(); }
    // From now on the peer tells by a byte on the socket. Before a sleep: [park-barrier], then another look. False: it did so
    // already.
    bool park_on_socket(bool for_frame) noexcept {
        auto& word = for_frame ? segment_.header()->consumer_parked : segment_.header()->producer_parked;
        if (word.load(std::memory_order_relaxed) == kParkedOnSocket) return false;
        word.store(kParkedOnSocket, std::memory_order_relaxed);
        return true;
    }
    [[nodiscard]] const Connection* connection() const noexcept { return connection_.get(); }

    // ---- the ring itself, for callers that inline it ----
    //
    // While one of the two is lent, only wait_readable or wait_writable, and check, may be used beside it, by the same thread.

    // Decides who sends, as a first send does: ok, or why this side cannot.
    [[nodiscard]] Status lend_producer(Producer*& producer) noexcept;
    [[nodiscard]] Status lend_consumer(Consumer*& consumer) noexcept;
    // Gives up an open claim; frames that are held become the next ones again.
    void take_back() noexcept;
    // How the peer is: ok, or how it ended; for a consumer only once there is nothing left to read. Asks the kernel at most
    // every 0.1 ms or so.
    [[nodiscard]] Status check() noexcept;

    // release() for a frame that the caller may have mixed up: no_claim if it is not the oldest one held, unchanged.
    [[nodiscard]] Status release_checked(const Frame& frame) noexcept {
        if (mode_.load(std::memory_order_relaxed) != Mode::consumer) [[unlikely]]
            return release_at_end(frame);
        if (!consumer_.is_oldest(frame) && !is_oldest_parcel(frame)) [[unlikely]]
            return Status::no_claim;
        return release(frame);
    }

    // ---- either ----

    // Tells the peer, wakes it, lets the socket go. Idempotent, never waits. What was committed can still be read over there.
    // End::aborted: the peer learns that it was not the whole.
    void close(End end = End::closed) noexcept;
    // From another thread: ends a wait with Status::closed. The waiting thread, or whoever is left, then calls close().
    void request_close() noexcept;

    // For a layer above that found something impossible in a frame: corrupt, from now on.
    Status poison() noexcept;

    void set_polling_mode(bool pure_spin) noexcept { pure_spin_ = pure_spin; }
    [[nodiscard]] int set_numa_node(unsigned node) noexcept { return segment_.bind_to_node(node); }

    [[nodiscard]] std::uint64_t capacity() const noexcept { return segment_.capacity(); }
    [[nodiscard]] std::uint64_t max_message_size() const noexcept { return max_size_; }  // through the ring
    [[nodiscard]] std::uint64_t max_large_size() const noexcept { return most_size_; }   // at all
    [[nodiscard]] int trouble() const noexcept { return parcels_.trouble; }  // an errno: why the last no_memory
    [[nodiscard]] bool is_parcel(std::uint64_t size) const noexcept override {
        return size > max_size_ && size <= most_size_;
    }
    [[nodiscard]] pid_t peer_pid() const noexcept { return peer_pid_; }
    [[nodiscard]] Barrier barrier() const noexcept { return barrier_; }
    [[nodiscard]] Stats stats() const noexcept;  // also while another thread waits
    // ok while open, else closed, forked or corrupt. Does not look at the peer.
    [[nodiscard]] Status state() const noexcept;

  private:
    // consumer and producer mean: nothing in the way, go. Atomic because a fork handler and request_close look at it.
    enum class Mode : std::uint8_t { undecided, consumer, producer, producer_gone, finished, corrupt, closed, forked };

    [[nodiscard]] Status begin_send(std::uint64_t size) noexcept {
        if (mode_.load(std::memory_order_relaxed) != Mode::producer || producer_.claim_open() ||
            peer_closed_->load(std::memory_order_relaxed) != 0) [[unlikely]] {
            if (const Status status = begin_send_slowly(size); status != Status::ok) return status;
        }
        return size <= max_size_ ? Status::ok : Status::too_large;
    }
    [[nodiscard]] Status after_send() noexcept {
        if (const std::uint64_t now = coarse_ns(); now != last_tick_) [[unlikely]]
            return check_after_send(now);
        return Status::ok;
    }

    // What Outlet's and Inlet's waits are made of.
    [[nodiscard]] bool look_for_room(std::uint64_t size, std::uint64_t looks) noexcept override {
        return spin_writable(size, looks);
    }
    [[nodiscard]] Status sleep_for_room(std::uint64_t size, std::uint64_t until) noexcept override {
        return wait_writable(size, until);
    }
    [[nodiscard]] bool look_for_frame(std::uint64_t looks) noexcept override { return spin_readable(looks); }
    void prepare_for_frame() noexcept override { prepare_wait(); }
    [[nodiscard]] Status sleep_for_frame(std::uint64_t until) noexcept override { return wait_beside(until); }
    friend class Batch;
    friend class Caller;
    friend class Callee;
    friend class Reply;
    friend class Answer;

    [[nodiscard]] bool over() const noexcept {
        const Mode mode = mode_.load(std::memory_order_relaxed);
        return (mode != Mode::consumer && mode != Mode::producer && mode != Mode::undecided) || peer_said_closed();
    }
    [[nodiscard]] Status begin_send_slowly(std::uint64_t size) noexcept;
    [[nodiscard]] bool can_advance(std::uint64_t size) noexcept {
        return size <= max_size_ ? producer_.can_advance(size) : parcel_can_advance(size);
    }
    [[nodiscard]] Status why_no_commit(std::uint32_t size) noexcept;
    // `why`: what begin_send said. All of them answer only if that was too_large.
    [[nodiscard]] Status begin_parcel(Status why, std::uint64_t size) noexcept;
    [[nodiscard]] Status claim_announcement(Status why, std::uint64_t size) noexcept;
    [[nodiscard]] Status send_parcel(Status why, const OutgoingMessage& message, Wake wake) noexcept;
    [[nodiscard]] Status claim_parcel(Status why, std::uint64_t size, std::uint8_t*& payload) noexcept;
    [[nodiscard]] Status commit_unusually(const OutgoingMessage& message, Wake wake) noexcept;
    [[nodiscard]] Status post(const OutgoingMessage& message, Wake wake) noexcept;
    [[nodiscard]] Status not_passed(int error_number, std::uint64_t size) noexcept;
    [[nodiscard]] bool parcel_can_advance(std::uint64_t size) noexcept;
    [[nodiscard]] Status take_parcel(Frame& frame) noexcept;
    [[nodiscard]] bool is_oldest_parcel(const Frame& frame) const noexcept;
    Status release_at_end(const Frame& frame) noexcept;
    Status no_memory(int error_number) noexcept;
    [[nodiscard]] Status begin_receive() noexcept;
    [[nodiscard]] Status no_room(std::uint64_t size) noexcept;
    [[nodiscard]] bool wanted_now() noexcept;
    void count_park(SideCounters* counters) noexcept;
    [[nodiscard]] Status nothing_to_peek(Status status, Frame& frame) noexcept;
    [[nodiscard]] Status check_consumer() noexcept;
    [[nodiscard]] Status check_after_send(std::uint64_t now) noexcept;
    [[nodiscard]] Status ended(Mode mode) const noexcept;
    // [close] How the peer says it left: ok while it has not.
    [[nodiscard]] Status peer_end() const noexcept {
        const std::uint32_t end = peer_closed_->load(std::memory_order_acquire);
        if (end == static_cast<std::uint32_t>(End::open)) [[likely]]
            return Status::ok;
        return end == static_cast<std::uint32_t>(End::closed) ? Status::peer_closed : Status::peer_aborted;
    }
    [[nodiscard]] bool peer_said_closed() const noexcept { return peer_end() != Status::ok; }
    [[nodiscard]] bool frame_seen() const noexcept {
        return !blocked_.load(std::memory_order_acquire) && consumer_.has_word();  // [unblock]
    }
    [[nodiscard]] Status release_among_others(const Frame& frame) noexcept;
    void say_end(End end) noexcept;
    [[nodiscard]] bool peer_gone_by_clock() noexcept;
    template <class HasWork>
    [[nodiscard]] Status wait(std::atomic<std::uint32_t>& parked, std::uint64_t until, HasWork has_work,
                              bool may_doze = false) noexcept;
    template <class Check, class Sleep>
    [[nodiscard]] static Status wait_for_consumer(const Waiting& waiting, Check check, Sleep sleep);
    template <class HasWork>
    [[nodiscard]] Status wait_as_producer(std::uint64_t until, HasWork has_work, bool may_doze = false) noexcept;
    void disown() noexcept;  // in a forked child

    std::shared_ptr<Connection> connection_;
    RingSegment segment_;
    pid_t peer_pid_;
    Barrier barrier_;
    Side side_;
    std::uint64_t max_size_;
    std::uint64_t most_size_;
    std::atomic<std::uint32_t>* closed_;       // ours, in the segment
    std::atomic<std::uint32_t>* peer_closed_;  // the peer's
    std::atomic<Mode> mode_{Mode::undecided};
    std::atomic<bool> closing_{false};
    bool pure_spin_ = false;
    Status gone_ = Status::ok;  // of a producer: how the consumer went
    std::uint64_t claim_end_ =
        0;  // one more than the bytes that were asked for; the ring knows whole lines only. 0: a parcel's
    static constexpr std::uint64_t kAllRead = kNever, kLeft = kNever - 1;
    std::uint64_t wanted_ = 0;       // room that the last try lacked, or that all is read, or that the consumer leaves
    std::uint64_t asked_since_ = 0;  // since when a parked word has said "by the socket"; now_ns()
    std::uint64_t last_check_ = 0;
    std::uint64_t last_tick_ = 0;  // coarse_ns() of the last send that asked whether the peer lives
    std::uint64_t waits_ = 0;
    std::atomic<std::uint64_t> parks_ = 0;  // stats() may be asked while another thread waits
    SpinBudget budget_;
    Producer producer_;
    Consumer consumer_;
    EarlyReleases early_;
    std::atomic<bool> unusual_{false};  // early_ is not empty, parcels were received, or blocked_
    std::atomic<bool> blocked_{
        false};  // the whole ring was held before this wait: the word at the cursor is that of the oldest frame
    Parcels parcels_;
    int exceptions_ = std::uncaught_exceptions();  // on their way when this was made: then they are not why it goes
    ForkNode fork_node_{this, [](void* bus) noexcept { static_cast<Bus*>(bus)->disown(); }};
};

}  // namespace tachyon
