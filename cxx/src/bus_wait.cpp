// The part of bus.hpp that sleeps.
#include <algorithm>

#include "tachyon/bus.hpp"

namespace tachyon {

// ---- waiting -------------------------------------------------------------------------------------------------------------

template <class HasWork>
Status Bus::wait(std::atomic<std::uint32_t>& parked, std::uint64_t until, HasWork has_work, bool may_doze) noexcept {
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
    count_park(counters);
    const Parked parked_for = may_doze && budget_.traffic() ? doze_and_park(parked, barrier_, slice, look)
                                                            : park(parked, barrier_, slice, look);
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

void Bus::count_park(SideCounters* counters) noexcept {
    parks_.store(parks_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (counters == nullptr) return;
    counters->parks.store(parks_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    if (counters == &segment_.header()->producer) producer_.report(coarse_ns());
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
Status Bus::wait_as_producer(std::uint64_t until, HasWork has_work, bool may_doze) noexcept {
    if (closing_.load(std::memory_order_relaxed)) return Status::closed;
    const Status status = wait(segment_.header()->producer_parked, until, has_work, may_doze);
    if (closing_.load(std::memory_order_relaxed)) return Status::closed;
    if (status == Status::empty) {
        last_check_ = 0;
        return Status::full;
    }
    return status;
}

Status Bus::wait_writable(std::uint64_t size, std::uint64_t until) noexcept {
    Status status = begin_send(size);
    if (status == Status::too_large) {
        status = begin_parcel(status, size);
        if (parcels_.retry_at > now_ns()) until = std::min(until, parcels_.retry_at);
    }
    if (status != Status::ok) return status;
    return wait_as_producer(until, [this, size] { return can_advance(size); }, true);
}

// ---- for other people's loops ----------------------------------------------------------------------------------------------

bool Bus::wanted_now() noexcept {
    if (wanted_ == kLeft) return false;  // that shows at the peer, not in the ring
    return wanted_ == kAllRead ? producer_.all_read() || producer_.corrupt() : can_advance(wanted_);
}

// As a wait, but the sleep is somebody else's, and may be long: the descriptor itself has to ring wherever a slice would end.
bool Bus::arm(bool for_room) {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode == Mode::closed || mode == Mode::forked) return false;
    (void)connection_->bell();
    if (connection_->known_gone()) {
        last_check_ = 0;  // the next try is to ask the kernel
        return false;
    }
    SegmentHeader* const header = segment_.header();
    if (for_room) {
        if (mode != Mode::producer && mode != Mode::finished) return false;
    } else {
        if (mode != Mode::consumer) {
            if (const Status status = begin_receive(); status != Status::ok && status != Status::empty) return false;
        }
        prepare_wait();
    }
    std::atomic<std::uint32_t>& parked = for_room ? header->producer_parked : header->consumer_parked;
    const auto look = [&] {
        return (for_room ? wanted_now() : frame_seen()) || closing_.load(std::memory_order_relaxed) ||
               peer_said_closed();
    };
    if (look()) return false;
    // As in a wait: for as long as that has paid lately.
    if (const std::uint64_t budget = budget_.next(now_ns()); budget > 0) {
        if (spin(budget, look)) {
            budget_.paid();
            return false;
        }
        budget_.failed();
    }
    if (park_on_socket(!for_room)) asked_since_ = now_ns();
    const bool sure = park_barrier(barrier_) && barrier_ == Barrier::locked;
    if (look()) {
        budget_.paid();
        parked.store(kAwake, std::memory_order_relaxed);
        return false;
    }
    if (for_room && parcels_.retry_at > now_ns()) connection_->ring_by(parcels_.retry_at);  // nobody else would tell
    if (!sure) {
        // See wait.hpp, park(): once more, when the store has left this core for certain.
        const std::uint64_t now = now_ns();
        if (now - asked_since_ < kStoreDelay) connection_->ring_by(asked_since_ + kStoreDelay);
    }
    if (connection_->process() < 0) connection_->ring_by(now_ns() + kSlice);  // its end may show at no descriptor
    const bool decided = mode_.load(std::memory_order_relaxed) != Mode::undecided;
    count_park(!decided ? nullptr : for_room ? &header->producer : &header->consumer);
    return true;
}

bool Bus::disarm() {
    bool knocked = false;
    const bool there = connection_ != nullptr && connection_->hush(knocked);
    if (!there) last_check_ = 0;
    budget_.slept(knocked);
    return there;
}

// ---- has it been read? ---------------------------------------------------------------------------------------------------

Status Bus::check_read() noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode == Mode::undecided) return peer_end();  // nothing sent: nothing unread
    if (mode != Mode::producer && mode != Mode::producer_gone) return ended(mode);
    if (mode == Mode::producer && producer_.claim_open()) return Status::claim_open;
    if (producer_.all_read()) return Status::ok;
    wanted_ = kAllRead;
    const Status gone = mode == Mode::producer ? check_consumer() : gone_;
    if (gone == Status::ok) return Status::full;
    return producer_.all_read() ? Status::ok : gone;  // it may have read on before it left
}

Status Bus::wait_read(std::uint64_t until) noexcept {
    if (const Status status = check_read(); status != Status::full) return status;
    const Status status = wait_as_producer(until, [this] { return producer_.all_read(); });
    return status == Status::ok || status == Status::full ? check_read() : status;
}

Status Bus::check_left() noexcept {
    const Mode mode = mode_.load(std::memory_order_relaxed);
    if (mode != Mode::finished) return mode == Mode::producer ? Status::no_claim : ended(mode);
    Status end = peer_end();
    if (end == Status::ok) {
        wanted_ = kLeft;
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

}  // namespace tachyon
