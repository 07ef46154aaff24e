// Linux: epoll with a timerfd.
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "tachyon/error.hpp"
#include "tachyon/link/event_queue.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

EventQueue::EventQueue(const char* doing) : queue_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!queue_) fail_descriptor(errno, std::string("cannot ") + doing);
}

void EventQueue::disown() noexcept {
    queue_.reset();
    timer_.reset();
}

int EventQueue::add(int descriptor, void* tag) noexcept {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = tag;
    return ::epoll_ctl(queue_.get(), EPOLL_CTL_ADD, descriptor, &event) == 0 ? 0 : errno;
}

void EventQueue::remove(int descriptor) noexcept {
    epoll_event event{};  // kernels before 2.6.9 want one
    ::epoll_ctl(queue_.get(), EPOLL_CTL_DEL, descriptor, &event);
}

void EventQueue::set_timer(std::uint64_t deadline) {
    if (!timer_) {
        Descriptor timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
        if (!timer || add(timer.get(), nullptr) != 0) fail_descriptor(errno, "cannot make a timer");
        timer_ = std::move(timer);
    }
    if (deadline == timer_set_to_) return;
    itimerspec time{};  // all 0: never
    if (deadline != kNever) {
        time.it_value.tv_sec = static_cast<time_t>(deadline / 1'000'000'000u);
        time.it_value.tv_nsec = static_cast<long>(deadline % 1'000'000'000u);
    }
    if (::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &time, nullptr) == 0) timer_set_to_ = deadline;
}

void EventQueue::forget_past() noexcept {}  // epoll looks again by itself

int EventQueue::wait(std::span<void*> tags, int milliseconds) noexcept {
    std::array<epoll_event, 64> events;
    const std::size_t room = std::min(events.size(), tags.size());
    const int count = ::epoll_wait(queue_.get(), events.data(), static_cast<int>(room), milliseconds);
    for (std::size_t i = 0; std::cmp_less(i, count); ++i) tags[i] = events[i].data.ptr;
    return count;
}

}  // namespace tachyon
