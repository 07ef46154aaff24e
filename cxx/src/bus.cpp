#include "tachyon/bus.hpp"

#include <algorithm>
#include <exception>

namespace tachyon {

std::unique_ptr<Bus> Bus::listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt) {
    return adopt(tachyon::listen(path, options, interrupt));
}

std::unique_ptr<Bus> Bus::connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt) {
    return adopt(tachyon::connect(path, options, interrupt));
}

std::unique_ptr<Bus> Bus::listen(Descriptor socket, const ListenOptions& options, const Interrupt& interrupt) {
    return adopt(Meeting(std::move(socket), options).meet(options.deadline, interrupt));
}

std::unique_ptr<Bus> Bus::connect(Descriptor socket, const ConnectOptions& options, const Interrupt& interrupt) {
    return adopt(
        Meeting(std::move(socket), options).meet(options.deadline != 0 ? options.deadline : kNever, interrupt));
}

std::unique_ptr<Bus> Bus::adopt(Established established, Side producer) {
    return set_up([&] {
        return std::make_unique<Bus>(std::make_shared<Connection>(std::move(established.connection)),
                                     RingSegment(std::move(established.segments.front())), producer);
    });
}

namespace {

Doorbell doorbell_of(Connection* connection) {
    return {[](void* context) noexcept { static_cast<Connection*>(context)->knock(); }, connection};
}

}  // namespace

Bus::Bus(std::shared_ptr<Connection> connection, RingSegment segment, Side producer)
    : connection_(std::move(connection)),
      segment_(std::move(segment)),
      peer_pid_(connection_->peer_pid()),
      barrier_(connection_->barrier()),
      side_(connection_->side()),
      max_size_(tachyon::max_message_size(segment_.capacity())),
      most_size_(std::max(max_size_, std::min(connection_->max_large(), tachyon::max_message_size(kMaxCapacity)))),
      producer_(segment_.ring(barrier_, doorbell_of(connection_.get()))),
      consumer_(segment_.ring(barrier_, doorbell_of(connection_.get()))),
      parcels_(connection_->max_large()) {
    SegmentHeader* const header = segment_.header();
    closed_ = side_ == Side::listener ? &header->listener_closed : &header->connector_closed;
    peer_closed_ = side_ == Side::listener ? &header->connector_closed : &header->listener_closed;
    if (producer != Side::undecided)
        mode_.store(producer == side_ ? Mode::producer : Mode::consumer, std::memory_order_relaxed);
}

Bus::~Bus() { close(std::uncaught_exceptions() > exceptions_ ? End::aborted : End::closed); }

// ---- roles ---------------------------------------------------------------------------------------------------------------

Status Bus::ended(Mode mode) const noexcept {
    switch (mode) {
        case Mode::producer_gone: return gone_;
        case Mode::corrupt: return Status::corrupt;
        case Mode::finished:
        case Mode::closed: return Status::closed;
        case Mode::forked: return Status::forked;
        default: return Status::wrong_side;
    }
}

// Called unless this side is a producer without an open claim, whose consumer has not closed.
Status Bus::begin_send_slowly(std::uint64_t size) noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode == Mode::producer) return producer_.claim_open() ? Status::claim_open : check_consumer();
    if (mode != Mode::undecided) return ended(mode);
    if (size > max_size_)
        return Status::too_large;  // a message that cannot be sent decides nothing; a parcel asks again
    if (const Status end = peer_end(); end != Status::ok) return end;
    // [role] release: whoever sees our first commit sees who made it. The value is looked at once and then kept.
    auto expected = static_cast<std::uint32_t>(Side::undecided);
    const bool first = segment_.header()->producer_side.compare_exchange_strong(
        expected, static_cast<std::uint32_t>(side_), std::memory_order_acq_rel);
    if (!first && expected != static_cast<std::uint32_t>(other_side(side_))) return poison();
    mode_.store(first ? Mode::producer : Mode::consumer, std::memory_order_relaxed);
    // Both sides may have parked on this word until now, and ours has perhaps taken the place of a peer's that waits for a byte.
    // Told that the roles are decided, it says so anew, and nobody writes over that.
    if (first && segment_.header()->consumer_parked.load(std::memory_order_relaxed) != kAwake) connection_->knock();
    return first ? Status::ok : Status::wrong_side;
}

// Called unless this side is the consumer. ok: it is now. empty: nobody has sent anything yet.
Status Bus::begin_receive() noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode == Mode::producer || mode == Mode::producer_gone) return Status::wrong_side;
    if (mode != Mode::undecided) return ended(mode);
    const auto& role = segment_.header()->producer_side;
    std::uint32_t side = role.load(std::memory_order_acquire);  // [role]
    if (side == static_cast<std::uint32_t>(Side::undecided)) {
        if (!consumer_.has_frame()) return Status::empty;
        side = role.load(std::memory_order_acquire);  // whoever sees a commit sees who made it
    }
    if (side != static_cast<std::uint32_t>(other_side(side_))) return poison();
    mode_.store(Mode::consumer, std::memory_order_relaxed);
    return Status::ok;
}

Status Bus::poison() noexcept {
    mode_.store(Mode::corrupt, std::memory_order_relaxed);
    return Status::corrupt;
}

// ---- the peer's end ------------------------------------------------------------------------------------------------------

// Asks the kernel at most every 0.1 ms or so, so that it can stand in the path of a polling caller.
bool Bus::peer_gone_by_clock() noexcept {
    const std::uint64_t now = ticks();
    if (now - last_check_ <= kTicksBetweenChecks) return false;
    const bool gone = connection_->hung_up();
    last_check_ = gone ? 0 : now;  // gone once, gone at every later look
    return gone;
}

// Is there still somebody to read?
Status Bus::check_consumer() noexcept {
    Status end = peer_end();
    if (end == Status::ok) {
        if (!peer_gone_by_clock()) return Status::ok;
        end = peer_end();  // it said so before it hung up
    }
    gone_ = end != Status::ok ? end : Status::peer_dead;
    mode_.store(Mode::producer_gone, std::memory_order_relaxed);
    return gone_;
}

// A consumer that read this very message and then went is no failure of this send, but of the next. Closed only now: it may
// have read it or not, as after any close; the next send is refused.
Status Bus::check_after_send(std::uint64_t now) noexcept {
    last_tick_ = now;
    last_check_ = 0;  // a real look: the next comes a whole tick later
    producer_.report(now);
    return check_consumer() == Status::peer_dead && !producer_.all_read() ? Status::peer_dead : Status::ok;
}

Status Bus::no_room(std::uint64_t size) noexcept {
    if (producer_.corrupt()) return poison();
    wanted_ = size;
    const Status status = check_consumer();
    return status == Status::ok ? Status::full : status;
}

// The hang-up, or the flag, comes after the last commit: one more look decides whether there is anything left to read.
Status Bus::nothing_to_peek(Status status, Frame& frame) noexcept {
    if (status == Status::corrupt) return poison();
    if (status == Status::too_large) return take_parcel(frame);
    const bool gone = peer_gone_by_clock();
    const Status end = peer_end();
    if (!gone && end == Status::ok) return Status::empty;
    status = mode_.load(std::memory_order_relaxed) == Mode::consumer ? Status::ok : begin_receive();
    if (status == Status::ok) status = consumer_.peek(frame);
    if (status == Status::corrupt) return poison();
    if (status == Status::too_large) return take_parcel(frame);
    if (status != Status::empty) return status;
    return end != Status::ok ? end : Status::peer_dead;
}

// ---- claims --------------------------------------------------------------------------------------------------------------

Status Bus::why_no_commit(std::uint32_t size) noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode != Mode::producer) return ended(mode);
    if (!producer_.claim_open()) return Status::no_claim;
    if (size >= claim_end_) return Status::too_large;
    producer_.abort();
    return check_consumer();
}

Status Bus::abort() noexcept {
    parcels_.outgoing.reset();
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode != Mode::producer) return ended(mode);
    if (!producer_.claim_open()) return Status::no_claim;
    producer_.abort();
    return Status::ok;
}

// ---- releasing before one's turn -----------------------------------------------------------------------------------------

Status Bus::release_among_others(const Frame& frame) noexcept {
    const bool oldest = frame.position == consumer_.oldest();
    Frame line = frame;
    if (parcels_.received.find(frame.position) != nullptr) line.size = sizeof(std::uint64_t);
    if (const Status status = early_.release(consumer_, line); status != Status::ok) return status;
    const bool parcel = parcels_.received.drop(frame.position);
    unusual_.store(!early_.empty() || !parcels_.received.is_empty(), std::memory_order_relaxed);
    if (oldest) blocked_.store(false, std::memory_order_release);  // [unblock]
    if (parcel) consumer_.hand_back();  // there are few of them, and each is worth a producer's while
    return Status::ok;
}

// ---- lending -------------------------------------------------------------------------------------------------------------

Status Bus::lend_producer(Producer*& producer) noexcept {
    const Status status = begin_send(0);
    if (status == Status::ok) producer = &producer_;
    return status;
}

Status Bus::lend_consumer(Consumer*& consumer) noexcept {
    if (mode_.load(std::memory_order_relaxed) != Mode::consumer) {
        // Empty: nobody has sent anything yet; it will be the peer, because this side cannot send meanwhile.
        if (const Status status = begin_receive(); status != Status::ok && status != Status::empty) return status;
    }
    consumer = &consumer_;
    return Status::ok;
}

void Bus::take_back() noexcept {
    if (state() == Status::forked) return;  // what is open there is the parent's
    if (producer_.claim_open()) producer_.abort();
    if (consumer_.held() != 0) consumer_.put_back_all();
}

Status Bus::check() noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode == Mode::producer) return producer_.corrupt() ? poison() : check_consumer();
    if (mode != Mode::consumer && mode != Mode::undecided) return ended(mode);
    const bool gone = peer_gone_by_clock();
    const Status end = peer_end();
    if ((!gone && end == Status::ok) || consumer_.has_frame()) return Status::ok;
    return end != Status::ok ? end : Status::peer_dead;
}

// ---- closing -------------------------------------------------------------------------------------------------------------

void Bus::request_close() noexcept {
    closing_.store(true, std::memory_order_seq_cst);
    if (state() == Status::forked) return;
    // The exchange in wake() is the full barrier between the store above and the look at `parked`; a sleeper that it finds is
    // ours or the peer's, and either looks again. One that sleeps on its socket sees the hang-up that follows.
    wake(segment_.header()->consumer_parked);
    wake(segment_.header()->producer_parked);
}

// [close] The first word counts: what comes later is no news.
void Bus::say_end(End end) noexcept {
    if (closed_->load(std::memory_order_relaxed) == static_cast<std::uint32_t>(End::open)) {
        closed_->store(static_cast<std::uint32_t>(end), std::memory_order_release);
    }
}

Status Bus::finish() noexcept {
    if (mode_.load(std::memory_order_relaxed) == Mode::finished) return Status::ok;
    // A consumer that is gone already may have read everything: check_left() tells.
    if (const Status status = begin_send(0); status != Status::ok && status != Status::peer_closed &&
                                             status != Status::peer_aborted && status != Status::peer_dead)
        return status;
    say_end(End::closed);
    mode_.store(Mode::finished, std::memory_order_relaxed);
    wake(segment_.header()->consumer_parked, doorbell_of(connection_.get()));  // its exchange is the full barrier
    return Status::ok;
}

void Bus::close(End end) noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode == Mode::closed || mode == Mode::forked) return;
    if (mode == Mode::consumer) consumer_.hand_back();
    if (mode == Mode::producer) producer_.report(coarse_ns());
    mode_.store(Mode::closed, std::memory_order_relaxed);
    say_end(end);
    request_close();
    // The socket's hang-up must come after the `closed` of every ring that shares it, or it would look like a death.
    if (connection_.use_count() == 1) connection_->shut_down();
    connection_.reset();
}

void Bus::disown() noexcept {
    if (mode_.load(std::memory_order_relaxed) == Mode::closed) return;
    mode_.store(Mode::forked, std::memory_order_relaxed);
    connection_->abandon();  // once more for each ring that shares it: harmless
}

// ---- looking -------------------------------------------------------------------------------------------------------------

Status Bus::state() const noexcept {
    switch (mode_.load(std::memory_order_relaxed)) {
        case Mode::corrupt: return Status::corrupt;
        case Mode::closed: return Status::closed;
        case Mode::forked: return Status::forked;
        default: return Status::ok;
    }
}

Stats Bus::stats() const noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    const std::uint32_t side = segment_.header()->producer_side.load(std::memory_order_relaxed);
    const Side producer = mode == Mode::producer   ? side_
                          : mode == Mode::consumer ? other_side(side_)
                          : side == 1 || side == 2 ? static_cast<Side>(side)
                                                   : Side::undecided;
    Stats stats;
    stats.side = side_;
    stats.producer = producer;
    stats.parks = parks_.load(std::memory_order_relaxed);
    stats.spin_budget_ns = budget_.budget();
    // A side uses one of the two; the other's counters are 0.
    stats.messages = producer_.messages() + consumer_.messages();
    stats.position = producer_.write_position() + consumer_.freed_position();
    stats.wakes = producer_.wakes() + consumer_.wakes();
    return stats;
}

}  // namespace tachyon
