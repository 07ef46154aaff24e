#include "tachyon/ring/early_releases.hpp"

#include <algorithm>
#include <exception>
#include <iterator>

namespace tachyon {

bool EarlyReleases::make_room(std::size_t count) noexcept {
    try {
        runs_.reserve(std::max({2 * runs_.capacity(), count, std::size_t{16}}));
    } catch (const std::exception&) {
        return false;
    }
    return true;
}

Status EarlyReleases::release(Consumer& consumer, const Frame& frame) noexcept {
    if (consumer.held() == 0) return Status::no_claim;
    if (frame.position != consumer.oldest()) return remember(consumer, frame);
    consumer.release(frame);
    auto run = runs_.begin();
    for (; run != runs_.end() && run->position == consumer.oldest(); ++run) consumer.release_run(run->end, run->frames);
    runs_.erase(runs_.begin(), run);
    return Status::ok;
}

// Into runs_, grown together with its neighbours: there are never more runs than frames that are held between them.
Status EarlyReleases::remember(Consumer& consumer, const Frame& frame) noexcept {
    const std::uint64_t end = frame.position + frame_size(frame.size);
    if (frame.position < consumer.oldest() || end > consumer.cursor()) return Status::no_claim;
    const auto next = std::ranges::upper_bound(runs_, frame.position, {}, &Run::position);
    const bool has_previous = next != runs_.begin();
    if (has_previous && frame.position < std::prev(next)->end) return Status::no_claim;
    const bool joins_previous = has_previous && consumer.after(std::prev(next)->end) == frame.position;
    const bool joins_next = next != runs_.end() && consumer.after(end) == next->position;
    if (joins_previous) {
        Run& previous = *std::prev(next);
        previous.end = joins_next ? next->end : end;
        previous.frames += joins_next ? next->frames + 1 : 1;
        if (joins_next) runs_.erase(next);
    } else if (joins_next) {
        next->position = frame.position;
        next->frames += 1;
    } else {
        const auto index = next - runs_.begin();
        if (!expect(runs_.size() + 1)) return Status::claim_open;
        runs_.insert(runs_.begin() + index, Run{frame.position, end, 1});
    }
    consumer.release_early(frame);
    return Status::ok;
}

}  // namespace tachyon
