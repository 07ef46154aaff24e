#include "tachyon/bus.hpp"

#include <algorithm>
#include <exception>
#include <iterator>

namespace tachyon {

std::unique_ptr<Bus> Bus::listen(const std::string& path, const ListenOptions& options, const Interrupt& interrupt) {
    return adopt(tachyon::listen(path, options, interrupt));
}

std::unique_ptr<Bus> Bus::connect(const std::string& path, const ConnectOptions& options, const Interrupt& interrupt) {
    return adopt(tachyon::connect(path, options, interrupt));
}

std::unique_ptr<Bus> Bus::adopt(Established established) {
    return set_up([&] {
        return std::make_unique<Bus>(std::move(established.connection),
                                     RingSegment(std::move(established.segments.front())));
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
      producer_(segment_.ring(barrier_, doorbell_of(connection_.get()))),
      consumer_(segment_.ring(barrier_, doorbell_of(connection_.get()))) {
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
    if (size > max_size_) return Status::too_large;  // a message that cannot be sent decides nothing
    if (const Status end = peer_end(); end != Status::ok) return end;
    // [role] release: whoever sees our first commit sees who made it. The value is looked at once and then kept.
    auto expected = static_cast<std::uint32_t>(Side::undecided);
    const bool first = segment_.header()->producer_side.compare_exchange_strong(
        expected, static_cast<std::uint32_t>(side_), std::memory_order_acq_rel);
    if (!first && expected != static_cast<std::uint32_t>(other_side(side_))) return poison();
    mode_.store(first ? Mode::producer : Mode::consumer, std::memory_order_relaxed);
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

Status Bus::no_room() noexcept {
    if (producer_.corrupt()) return poison();
    const Status status = check_consumer();
    return status == Status::ok ? Status::full : status;
}

// The hang-up, or the flag, comes after the last commit: one more look decides whether there is anything left to read.
Status Bus::nothing_to_peek(Status status, Frame& frame) noexcept {
    if (status == Status::corrupt) return poison();
    const bool gone = peer_gone_by_clock();
    const Status end = peer_end();
    if (!gone && end == Status::ok) return Status::empty;
    status = mode_.load(std::memory_order_relaxed) == Mode::consumer ? Status::ok : begin_receive();
    if (status == Status::ok) status = consumer_.peek(frame);
    if (status == Status::corrupt) return poison();
    if (status != Status::empty) return status;
    return end != Status::ok ? end : Status::peer_dead;
}

// ---- claims --------------------------------------------------------------------------------------------------------------

Status Bus::why_no_commit(std::uint32_t size) noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode != Mode::producer) return ended(mode);
    if (!producer_.claim_open()) return Status::no_claim;
    if (size > claim_size_) return Status::too_large;
    producer_.abort();
    return check_consumer();
}

Status Bus::abort() noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode != Mode::producer) return ended(mode);
    if (!producer_.claim_open()) return Status::no_claim;
    producer_.abort();
    return Status::ok;
}

// ---- releasing before one's turn -----------------------------------------------------------------------------------------

bool Bus::make_room(std::size_t count) noexcept {
    try {
        early_.reserve(std::max({2 * early_.capacity(), count, std::size_t{16}}));
    } catch (const std::exception&) {
        return false;
    }
    return true;
}

Status Bus::release_among_others(const Frame& frame) noexcept {
    if (consumer_.held() == 0) return Status::no_claim;
    if (frame.position != consumer_.oldest()) return remember(frame);
    consumer_.release(frame);
    auto run = early_.begin();
    for (; run != early_.end() && run->position == consumer_.oldest(); ++run)
        consumer_.release_run(run->end, run->frames);
    early_.erase(early_.begin(), run);
    unusual_.store(!early_.empty(), std::memory_order_relaxed);
    blocked_.store(false, std::memory_order_release);  // [unblock]
    return Status::ok;
}

// Into early_, grown together with its neighbours: there are never more runs than frames that are held between them.
Status Bus::remember(const Frame& frame) noexcept {
    const std::uint64_t end = frame.position + frame_size(frame.size);
    if (frame.position < consumer_.oldest() || end > consumer_.cursor()) return Status::no_claim;
    const auto next = std::ranges::upper_bound(early_, frame.position, {}, &Run::position);
    const bool has_previous = next != early_.begin();
    if (has_previous && frame.position < std::prev(next)->end) return Status::no_claim;
    const bool joins_previous = has_previous && consumer_.after(std::prev(next)->end) == frame.position;
    const bool joins_next = next != early_.end() && consumer_.after(end) == next->position;
    if (joins_previous) {
        Run& previous = *std::prev(next);
        previous.end = joins_next ? next->end : end;
        previous.frames += joins_next ? next->frames + 1 : 1;
        if (joins_next) early_.erase(next);
    } else if (joins_next) {
        next->position = frame.position;
        next->frames += 1;
    } else {
        const auto index = next - early_.begin();
        if (!expect_held(early_.size() + 1)) return Status::claim_open;
        early_.insert(early_.begin() + index, Run{frame.position, end, 1});
    }
    consumer_.release_early(frame);
    unusual_.store(true, std::memory_order_relaxed);
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

// ---- waiting -------------------------------------------------------------------------------------------------------------

template <class HasWork>
Status Bus::wait(std::atomic<std::uint32_t>& parked, std::uint64_t until, HasWork has_work) noexcept {
    const auto look = [&] { return has_work() || closing_.load(std::memory_order_relaxed) || peer_said_closed(); };
    if (look()) return Status::ok;
    SegmentHeader* const header = segment_.header();
    // Until the roles are decided nobody knows whose counters these would be.
    SideCounters* const counters = mode_.load(std::memory_order_relaxed) == Mode::undecided ? nullptr
                                   : &parked == &header->consumer_parked                    ? &header->consumer
                                                                                            : &header->producer;
    ++waits_;
    if (counters != nullptr) counters->waits.store(waits_, std::memory_order_relaxed);
    // A clock costs as much as the way of a message: the first looks go without.
    if (pure_spin_ || budget_.budget() != 0) {
        for (int i = 0; i < 16; ++i) {
            cpu_relax();
            if (look()) {
                budget_.paid();
                return Status::ok;
            }
        }
    }
    const std::uint64_t now = now_ns();
    if (now >= until) return Status::empty;
    const std::uint64_t slice = std::min(until - now, kSlice);
    if (pure_spin_) {
        return spin(slice, look) ? Status::ok : Status::empty;
    }
    if (const std::uint64_t budget = std::min(budget_.next(now), slice); budget > 0) {
        if (spin(budget, look)) {
            budget_.paid();
            return Status::ok;
        }
        budget_.failed();
    }
    parks_.store(parks_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (counters != nullptr) {
        counters->parks.store(parks_.load(std::memory_order_relaxed), std::memory_order_relaxed);
        if (counters == &header->producer) producer_.report(coarse_ns());
    }
    const Parked parked_for = park(parked, barrier_, slice, look);
    budget_.slept(parked_for != Parked::slice_over);
    switch (parked_for) {
        case Parked::saw_work:  // within the microseconds that the barrier took: a spin would have paid
            budget_.paid();
            return Status::ok;
        case Parked::slice_over: return Status::empty;
        case Parked::interrupted: return Status::interrupted;
        default: return Status::ok;
    }
}

void Bus::prepare_wait() noexcept {
    consumer_.hand_back();
    const bool blocked = consumer_.holds_whole_ring();
    blocked_.store(blocked, std::memory_order_relaxed);
    if (blocked) unusual_.store(true, std::memory_order_relaxed);
}

Status Bus::wait_beside(std::uint64_t until) noexcept {
    if (mode_.load(std::memory_order_relaxed) != Mode::consumer) {
        if (const Status status = begin_receive(); status != Status::ok && status != Status::empty) return status;
    }
    if (closing_.load(std::memory_order_relaxed)) return Status::closed;
    const Status status = wait(segment_.header()->consumer_parked, until, [this] { return frame_seen(); });
    // Until the first message both sides may sleep on this word, and leaving has just cleared it for both. Set, it costs the
    // sender one wake for nobody; clear, a peer that still sleeps would miss the first message until its slice is over.
    if (mode_.load(std::memory_order_relaxed) == Mode::undecided) {
        segment_.header()->consumer_parked.store(kParkedOnFutex, std::memory_order_relaxed);
    }
    if (closing_.load(std::memory_order_relaxed)) return Status::closed;
    if (status == Status::empty) last_check_ = 0;  // after a whole slice the next look at the peer is a real one
    return status;
}

// One slice of a producer's wait: full when it is over and nothing has come of it.
template <class HasWork>
Status Bus::wait_as_producer(std::uint64_t until, HasWork has_work) noexcept {
    if (closing_.load(std::memory_order_relaxed)) return Status::closed;
    const Status status = wait(segment_.header()->producer_parked, until, has_work);
    if (closing_.load(std::memory_order_relaxed)) return Status::closed;
    if (status == Status::empty) {
        last_check_ = 0;
        return Status::full;
    }
    return status;
}

Status Bus::wait_writable(std::uint64_t size, std::uint64_t until) noexcept {
    if (const Status status = begin_send(size); status != Status::ok) return status;
    return wait_as_producer(until, [this, size] { return producer_.can_advance(size); });
}

// ---- has it been read? ---------------------------------------------------------------------------------------------------

Status Bus::check_read() noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode == Mode::undecided) return peer_end();  // nothing sent: nothing unread
    if (mode != Mode::producer && mode != Mode::producer_gone) return ended(mode);
    if (mode == Mode::producer && producer_.claim_open()) return Status::claim_open;
    if (producer_.all_read()) return Status::ok;
    const Status gone = mode == Mode::producer ? check_consumer() : gone_;
    if (gone == Status::ok) return Status::full;
    return producer_.all_read() ? Status::ok : gone;  // it may have read on before it left
}

Status Bus::wait_read(std::uint64_t until) noexcept {
    if (const Status status = check_read(); status != Status::full) return status;
    const Status status = wait_as_producer(until, [this] { return producer_.all_read(); });
    return status == Status::ok || status == Status::full ? check_read() : status;
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

Status Bus::check_left() noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode != Mode::finished) return mode == Mode::producer ? Status::no_claim : ended(mode);
    Status end = peer_end();
    if (end == Status::ok) {
        if (!peer_gone_by_clock()) return Status::full;
        end = peer_end();
        if (end == Status::ok) return Status::peer_dead;
    }
    return end == Status::peer_closed && producer_.all_read() ? Status::ok : end;
}

Status Bus::wait_left(std::uint64_t until) noexcept {
    if (const Status status = check_left(); status != Status::full) return status;
    const Status status =
        wait_as_producer(until, [] { return false; });  // wait itself looks whether the peer has closed
    return status == Status::ok || status == Status::full ? check_left() : status;
}

template <class Check, class Sleep>
Status Bus::wait_for_consumer(const Waiting& waiting, Check check, Sleep sleep_slice) {
    struct Wait {
        Check& check;
        Sleep& slice;
        [[nodiscard]] Status attempt() const noexcept { return check(); }
        [[nodiscard]] static bool look(std::uint64_t) noexcept { return false; }
        [[nodiscard]] static std::uint64_t prepare(std::uint64_t until) noexcept { return until; }
        [[nodiscard]] Status sleep(std::uint64_t until) const noexcept { return slice(until); }
        [[nodiscard]] static bool unfinished() noexcept { return false; }
    } wait{check, sleep_slice};
    return detail::persist(waiting, Status::full, wait);
}

Status Bus::wait_read(const Waiting& waiting) {
    return wait_for_consumer(
        waiting, [this]() noexcept { return check_read(); },
        [this](std::uint64_t until) noexcept { return wait_read(until); });
}

Status Bus::wait_left(const Waiting& waiting) {
    return wait_for_consumer(
        waiting, [this]() noexcept { return check_left(); },
        [this](std::uint64_t until) noexcept { return wait_left(until); });
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
