#include "tachyon/link/inbox.hpp"

#include <utility>

#include "platform/sockets.hpp"

namespace tachyon {

// What a peer can put there between two looks is bounded by the socket's buffer; that it goes on meanwhile by this.
constexpr int kMostSteps = 512;

bool Inbox::take_some(int socket) noexcept {
    Descriptor passed;
    const Heard heard = hear_from(socket, passed);
    starved_ = heard == Heard::starved;
    if (heard == Heard::misbehaved) refuse();
    if (heard == Heard::descriptor && !misbehaved_) {
        if (count_ == kMostParcels) {
            refuse();
        } else {
            kept_[(oldest_ + count_++) % kMostParcels] = std::move(passed);
        }
    }
    return heard != Heard::nothing && heard != Heard::starved;
}

void Inbox::refuse() noexcept {
    misbehaved_ = true;
    for (Descriptor& each : kept_) each.reset();
    count_ = 0;
}

bool Inbox::hear(int socket) noexcept {
    const std::lock_guard lock(mutex_);
    int steps = 0;
    while (steps < kMostSteps && take_some(socket)) ++steps;
    return steps != 0 || starved_;
}

Status Inbox::first(int socket, int& descriptor) noexcept {
    const std::lock_guard lock(mutex_);
    for (int i = 0; i < kMostSteps && count_ == 0 && !misbehaved_ && take_some(socket); ++i) {}
    if (misbehaved_) return Status::corrupt;
    if (count_ == 0) return starved_ ? Status::no_memory : Status::empty;
    descriptor = kept_[oldest_].get();
    return Status::ok;
}

void Inbox::drop_first() noexcept {
    const std::lock_guard lock(mutex_);
    if (count_ == 0) return;  // a peer has gone wrong meanwhile
    kept_[oldest_].reset();
    oldest_ = (oldest_ + 1) % kMostParcels;
    --count_;
}

void Inbox::abandon() noexcept {
    // A thread of the parent may have been inside, and never comes back here: then they stay open, which keeps memory and no more.
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (lock) {
        for (Descriptor& each : kept_) each.reset();
        count_ = 0;
    }
}

}  // namespace tachyon
