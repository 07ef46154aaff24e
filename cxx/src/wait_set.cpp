#include "tachyon/wait_set.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "platform/sockets.hpp"
#include "tachyon/error.hpp"

namespace tachyon {

struct WaitSet::Member {
    Token token = 0;
    Bus* bus = nullptr;  // null: a descriptor
    bool for_frame = true;
    std::uint64_t size = 0;  // of the room waited for
    bool ready = false;      // the descriptor is readable, or the peer of the bus is gone
    std::array<int, 2> watched{-1, -1};

    [[nodiscard]] bool is_ready() const noexcept {
        if (bus == nullptr) return ready;
        return ready || (for_frame ? bus->readable_now() : bus->writable_now(size));
    }
};

WaitSet::WaitSet() : events_("wait for many") {}

WaitSet::~WaitSet() = default;

// ---- members -------------------------------------------------------------------------------------------------------------

WaitSet::Member* WaitSet::find(Token token) noexcept {
    const auto found = std::ranges::find_if(members_, [token](const auto& each) { return each->token == token; });
    return found == members_.end() ? nullptr : found->get();
}

void WaitSet::watch(Member& member, int descriptor) {
    const int error_number = events_.add(descriptor, &member);
    if (error_number != 0) {
        fail_handshake(error_number, std::string("cannot watch a peer: ") + std::strerror(error_number));
    }
    (member.watched[0] < 0 ? member.watched[0] : member.watched[1]) = descriptor;
}

void WaitSet::add(Token token, Bus& bus) {
    auto member = std::make_unique<Member>();
    member->token = token;
    member->bus = &bus;
    members_.push_back(std::move(member));
    try {
        watch(*members_.back(), bus.connection()->socket());
        if (bus.connection()->process() >= 0) watch(*members_.back(), bus.connection()->process());
    } catch (...) {
        remove(token);
        throw;
    }
}

void WaitSet::await_frame(Token token, Bus& bus) noexcept {
    if (Member* const member = find(token); member != nullptr) {
        member->bus = &bus;
        member->for_frame = true;
    }
}

void WaitSet::await_room(Token token, Bus& bus, std::uint64_t size) noexcept {
    if (Member* const member = find(token); member != nullptr) {
        member->bus = &bus;
        member->for_frame = false;
        member->size = size;
    }
}

void WaitSet::add_descriptor(Token token, int descriptor) {
    auto member = std::make_unique<Member>();
    member->token = token;
    members_.push_back(std::move(member));
    try {
        watch(*members_.back(), descriptor);
    } catch (...) {
        remove(token);
        throw;
    }
}

void WaitSet::remove(Token token) noexcept {
    const auto found = std::ranges::find_if(members_, [token](const auto& each) { return each->token == token; });
    if (found == members_.end()) return;
    // A closed bus has taken its descriptors along, and their numbers may be another member's by now.
    const bool closed = (*found)->bus != nullptr && (*found)->bus->connection() == nullptr;
    for (const int descriptor : (*found)->watched) {
        if (descriptor >= 0 && !closed) events_.remove(descriptor);
    }
    const auto index = static_cast<std::size_t>(found - members_.begin());
    members_.erase(found);
    if (next_ > index) --next_;
}

// ---- waiting -------------------------------------------------------------------------------------------------------------

WaitSet::Member* WaitSet::next_ready() noexcept {
    const std::size_t count = members_.size();
    for (std::size_t i = 0; i < count; ++i) {
        if (next_ >= count) next_ = 0;
        Member& member = *members_[next_++];
        if (member.is_ready()) {
            if (member.bus == nullptr) member.ready = false;  // events_ will say so again
            return &member;
        }
    }
    return nullptr;
}

// How many descriptors had something to say; -1: a signal came.
int WaitSet::look_at_descriptors(int timeout) noexcept {
    std::array<void*, 64> tags;
    const int count = events_.wait(tags, timeout);
    const int error_number = count < 0 ? errno : 0;
    last_look_ = ticks();
    if (error_number != 0 && error_number != EINTR) return look_at_each(timeout);
    for (int i = 0; i < count; ++i) {
        Member& member = *static_cast<Member*>(tags[static_cast<std::size_t>(i)]);
        const Connection* const connection = member.bus != nullptr ? member.bus->connection() : nullptr;
        if (connection == nullptr || connection->hung_up()) {
            member.ready = true;
        } else {
            (void)connection->hear();
        }
    }
    look_at_unwatched();
    return count;
}

// Where the queue itself cannot be asked, as when somebody has closed its number: no failure means that nothing has happened.
int WaitSet::look_at_each(int timeout) noexcept {
    if (timeout > 0) {
        const timespec pause{0, static_cast<long>(kMillisecond)};
        if (::nanosleep(&pause, nullptr) != 0) return -1;
    }
    int count = 0;
    for (const auto& member : members_) {
        const Connection* const connection = member->bus != nullptr ? member->bus->connection() : nullptr;
        if (connection == nullptr ? is_readable(member->watched[0]) : connection->hung_up()) {
            member->ready = true;
            ++count;
        } else if (connection != nullptr) {
            (void)connection->hear();
        }
    }
    return count;
}

// Whose process shows at no descriptor: somebody who inherited its socket keeps that silent.
void WaitSet::look_at_unwatched() noexcept {
    const std::uint64_t now = now_ns();
    if (now - last_look_unwatched_ < kSlice) return;
    last_look_unwatched_ = now;
    for (const auto& member : members_) {
        const Connection* const connection = member->bus != nullptr ? member->bus->connection() : nullptr;
        if (connection != nullptr && connection->process() < 0 && connection->hung_up()) member->ready = true;
    }
}

Status WaitSet::poll(Token& token) noexcept {
    if (!events_) return Status::forked;
    // Callers who keep the rings busy must not keep a new one, or the news of a death, waiting.
    if (ticks() - last_look_ > kTicksBetweenChecks) look_at_descriptors(0);
    const Member* const member = next_ready();
    if (member == nullptr) return Status::empty;
    token = member->token;
    return Status::ok;
}

// How long one may sleep after it: not for long where a peer may have missed what this says (see wait.hpp), or the kernel
// refused the barrier. The next time the words say it still, and have done so for that long.
std::uint64_t WaitSet::park() noexcept {
    bool locked = false, membarrier = false, unheard = false;
    for (const auto& member : members_) {
        if (member->bus == nullptr) continue;
        const bool said = member->bus->park_on_socket(member->for_frame);
        const bool is_locked = member->bus->barrier() == Barrier::locked;
        (is_locked ? locked : membarrier) = true;
        unheard |= said && !is_locked;
    }
    if (locked) park_barrier(Barrier::locked);
    if (membarrier && !park_barrier(Barrier::membarrier)) unheard = true;
    return unheard ? kStoreDelay : kSlice;
}

Status WaitSet::wait(std::uint64_t until, Token& token) noexcept {
    if (const Status status = poll(token); status != Status::empty) return status;
    const std::uint64_t now = now_ns();
    if (now >= until) return Status::empty;
    const std::uint64_t slice = std::min(until - now, kSlice);
    if (const std::uint64_t budget = std::min(budget_.next(now), slice); budget > 0) {
        Member* member = nullptr;
        if (spin(budget, [&] { return (member = next_ready()) != nullptr; })) {
            budget_.paid();
            token = member->token;
            return Status::ok;
        }
        budget_.failed();
    }
    const std::uint64_t most = std::min(slice, park());
    ++parks_;
    if (poll(token) == Status::ok) {
        budget_.paid();
        return Status::ok;
    }
    const auto milliseconds = static_cast<int>((most + kMillisecond - 1) / kMillisecond);
    if (look_at_descriptors(milliseconds) < 0) return Status::interrupted;
    const Status status = poll(token);
    budget_.slept(status == Status::ok);
    return status;
}

}  // namespace tachyon
