// macOS: kqueue.
#include <sys/event.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "platform/macos.hpp"
#include "tachyon/error.hpp"
#include "tachyon/link/event_queue.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

EventQueue::EventQueue(const char* doing) : queue_(::kqueue()) {
    if (!queue_) fail_descriptor(errno, std::string("cannot ") + doing);
    set_cloexec(queue_.get());
}

void EventQueue::disown() noexcept { queue_.forget(); }

int EventQueue::add(int descriptor, void* tag) noexcept {
    struct kevent change{};
    EV_SET(&change, descriptor, EVFILT_READ, EV_ADD, 0, 0, tag);
    return ::kevent(queue_.get(), &change, 1, nullptr, 0, nullptr) == 0 ? 0 : errno;
}

void EventQueue::remove(int descriptor) noexcept {
    struct kevent change{};
    EV_SET(&change, descriptor, EVFILT_READ, EV_DELETE, 0, 0, nullptr);
    ::kevent(queue_.get(), &change, 1, nullptr, 0, nullptr);
}

void EventQueue::set_timer(std::uint64_t deadline) {
    if (deadline == timer_set_to_) return;
    struct kevent change{};
    EV_SET(&change, 0, EVFILT_TIMER, EV_DELETE, 0, 0, nullptr);  // with what it has already said
    ::kevent(queue_.get(), &change, 1, nullptr, 0, nullptr);
    timer_set_to_ = kNever;
    if (deadline != kNever) {
        const std::uint64_t now = now_ns();
        const auto left = static_cast<std::int64_t>(deadline > now ? deadline - now : 0);
        EV_SET(&change, 0, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_NSECONDS, left, nullptr);
        if (::kevent(queue_.get(), &change, 1, nullptr, 0, nullptr) != 0) return;
    }
    timer_set_to_ = deadline;
}

void EventQueue::forget_past() noexcept {
    // What is still true goes back into the queue when it is taken out. A timer that has run out is set anew by its owner.
    std::array<void*, 64> tags;
    (void)wait(tags, 0);
}

int EventQueue::wait(std::span<void*> tags, int milliseconds) noexcept {
    std::array<struct kevent, 64> events;
    const std::size_t room = std::min(events.size(), tags.size());
    const timespec patience{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
    const int count = ::kevent(queue_.get(), nullptr, 0, events.data(), static_cast<int>(room),
                               milliseconds < 0 ? nullptr : &patience);
    for (int i = 0; i < count; ++i) {
        const auto at = static_cast<std::size_t>(i);
        tags[at] = events[at].udata;
        if (events[at].filter == EVFILT_TIMER) timer_set_to_ = kNever;  // once
    }
    return count;
}

}  // namespace tachyon
