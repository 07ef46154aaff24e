#include "tachyon/host/bus_handle.hpp"

#include <utility>

namespace tachyon {

// ---- life ----------------------------------------------------------------------------------------------------------------

BusHandle* BusHandle::never_opened() noexcept {
    static BusHandle handle(nullptr, "");
    return &handle;
}

BusHandle::BusHandle(std::unique_ptr<Bus> bus, std::string path)
    : path_(std::move(path)),
      capacity_(bus != nullptr ? bus->capacity() : 0),
      max_large_size_(bus != nullptr ? bus->max_large_size() : 0),
      peer_pid_(bus != nullptr ? bus->peer_pid() : 0),
      bus_(std::move(bus)) {
    if (bus_ == nullptr) {
        gate_.ask_to_close(static_cast<int>(End::closed));
        if (gate_.begin_closing()) gate_.end_closing();
    }
}

Status BusHandle::state() const noexcept {
    if (closing()) return Status::closed;
    return forked_.load(std::memory_order_relaxed) ? Status::forked : Status::ok;
}

Status BusHandle::why_not_entered() const noexcept {
    if (const Status status = state(); status != Status::ok) return status;
    return gate_.guards() != gate_.held() ? Status::claim_open : Status::busy;
}

void BusHandle::close(End how) noexcept {
    if (bus_ == nullptr) return;
    gate_.ask_to_close(static_cast<int>(how));
    finish_close();
    if (!gate_.is_closed()) bus_->request_close();  // wakes who is inside
}

// Without the lock.
void BusHandle::close_freely() noexcept {
    if (gate_.begin_closing_freely()) close_bus();
}

// After begin_closing().
void BusHandle::close_bus() noexcept {
    bus_->close(static_cast<End>(gate_.how()));
    gate_.end_closing();
}

// Under the lock: the memory goes too, unless somebody holds some of it, is inside, or is closing it without the lock.
void BusHandle::finish_close() noexcept {
    if (gate_.begin_closing()) close_bus();
    if (gate_.is_over()) bus_.reset();
}

void BusHandle::end_guard() noexcept {
    gate_.end_guard();
    if (gate_.must_close()) finish_close();
}

// ---- lending -------------------------------------------------------------------------------------------------------------

template <class Lend>
Status BusHandle::lend_as(Gate::User user, Lend lend) noexcept {
    if (!enter()) return why_not_entered();
    if (gate_.guards() != 0) {
        leave();
        return Status::claim_open;
    }
    if (const Status status = lend(); status != Status::ok) {
        leave();
        return status;
    }
    gate_.lend(user);
    return Status::ok;
}

Status BusHandle::lend(Producer*& producer) noexcept {
    return lend_as(Gate::User::lent_producer, [&]() noexcept { return bus_->lend_producer(producer); });
}

Status BusHandle::lend(Consumer*& consumer) noexcept {
    return lend_as(Gate::User::lent_consumer, [&]() noexcept { return bus_->lend_consumer(consumer); });
}

Status BusHandle::take_back() noexcept {
    if (bus_ == nullptr || !gate_.is_lent()) return Status::no_claim;
    bus_->take_back();
    leave();
    return Status::ok;
}

// ---- free code -----------------------------------------------------------------------------------------------------------

Status BusHandle::let_go_refused(Status why, int count) noexcept {
    if (ends_hold(why) && gate_.held() >= count) gate_.let_go(count);
    return why;
}

Status BusHandle::claim(std::uint64_t size, std::uint8_t*& payload, const Waiting& waiting) {
    const FreeUse inside(*this);
    if (!inside) return why_not_entered();
    const Status status = static_cast<Outlet&>(*bus_).claim(size, payload, waiting);
    if (status == Status::ok) gate_.hold(1);
    return status;
}

Status BusHandle::abort() noexcept {
    const FreeUse inside(*this);
    if (!inside) return let_go_refused(why_not_entered(), 1);
    const Status status = bus_->abort();
    let_go_after(status);
    return status;
}

Status BusHandle::send(const void* data, std::uint64_t size, std::uint32_t type_id, const Waiting& waiting) {
    const FreeUse inside(*this);
    if (!inside) return why_not_entered();
    return bus_->send(data, size, type_id, waiting);
}

Status BusHandle::peek(Frame& frame, const Waiting& waiting) {
    const FreeUse inside(*this);
    if (!inside) return why_not_entered();
    const Status status = bus_->peek(frame, waiting);
    if (status == Status::ok) gate_.hold(1);
    return status;
}

Status BusHandle::try_drain(Frame* frames, std::size_t most, std::size_t& count) noexcept {
    return drain(frames, most, count, Waiting::until(0));
}

Status BusHandle::drain(Frame* frames, std::size_t most, std::size_t& count, const Waiting& waiting) {
    count = 0;
    const FreeUse inside(*this);
    if (!inside) return why_not_entered();
    if (most == 0) return Status::ok;
    Status status = bus_->peek(frames[0], waiting);
    while (status == Status::ok && ++count < most) status = bus_->try_peek(frames[count]);
    if (count == 0) return status;
    gate_.hold(static_cast<int>(count));  // what came after them is the next call's
    return Status::ok;
}

Status BusHandle::release_all(const Frame* frames, std::size_t count) noexcept {
    const FreeUse inside(*this);
    if (!inside) return let_go_refused(why_not_entered(), static_cast<int>(count));
    Status status = Status::ok;
    for (std::size_t i = 0; i < count && status != Status::no_claim && status != Status::wrong_side; ++i) {
        status = bus_->release_checked(frames[i]);
        let_go_after(status);
    }
    bus_->hand_back();
    return status;
}

Status BusHandle::wait_writable(std::uint64_t size, std::uint64_t until) noexcept {
    const FreeUse inside(*this);
    if (!lent_or_inside(static_cast<bool>(inside))) return why_not_entered();
    const Status status = bus_->check();
    return status == Status::ok ? bus_->wait_writable(size, until) : status;
}

Status BusHandle::wait_readable(std::uint64_t until) noexcept {
    const FreeUse inside(*this);
    if (!lent_or_inside(static_cast<bool>(inside))) return why_not_entered();
    const Status status = bus_->check();
    return status == Status::ok ? bus_->wait_readable(until) : status;
}

Status BusHandle::check() noexcept {
    const FreeUse inside(*this);
    if (inside) return bus_->check();
    if (!gate_.is_lent_here()) return why_not_entered();
    return gate_.must_close() ? Status::closed : bus_->check();
}

}  // namespace tachyon
