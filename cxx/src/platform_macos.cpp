// macOS: unlinked POSIX shared memory, LOCAL_PEERPID, kqueue for events, timers and the end of a process.
//
// Compiled and linked for arm64 and x86_64 (scripts/check_macos), never run. What is said here of its kernel was read in the
// published source of xnu 11417 (macOS 15), in the files named.
//
// Weaker than on Linux: a listener whose queue is full refuses like one that is gone (bsd/kern/uipc_usrreq.c), so that a socket
// file with about a hundred clients waiting can be taken for a stale one; a process is watched by its pid, which may have been
// given to another one already; memory is not reserved.
#include <fcntl.h>
#include <poll.h>
#include <sys/event.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "platform.hpp"
#include "tachyon/error.hpp"
#include "tachyon/link/event_queue.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// ---- memory --------------------------------------------------------------------------------------------------------------

namespace {

void set_cloexec(int descriptor) noexcept { ::fcntl(descriptor, F_SETFD, FD_CLOEXEC); }

std::uint64_t round_to_page(std::uint64_t bytes) {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    return (bytes + page - 1) / page * page;
}

// It pages to disk rather than refuse; more than the machine has is an error all the same.
void check_available(std::uint64_t bytes) {
    std::uint64_t memory = 0;
    std::size_t length = sizeof memory;
    if (::sysctlbyname("hw.memsize", &memory, &length, nullptr, 0) == 0 && bytes > memory) {
        fail_memory(ENOMEM, bytes, "the machine has " + std::to_string(memory));
    }
}

}  // namespace

// The size of such an object can be set once only (pshm_truncate in bsd/kern/posix_shm.c): it needs no seals.
Descriptor make_shared_memory(std::uint64_t bytes) {
    check_available(bytes);
    for (int attempt = 0;; ++attempt) {
        std::array<unsigned, 2> random{};
        (void)::getentropy(random.data(), sizeof random);
        std::array<char, 32> name{};  // 31 bytes are the most (PSHMNAMLEN)
        (void)std::snprintf(name.data(), name.size(), "/tachyon-%08x%08x", random[0], random[1]);
        Descriptor memory(::shm_open(name.data(), O_RDWR | O_CREAT | O_EXCL, 0600));
        if (!memory) {
            if (errno == EEXIST && attempt < 8) continue;
            if (errno == EMFILE || errno == ENFILE) fail_descriptor(errno, "shm_open");
            fail_memory(errno, bytes, "shm_open");
        }
        ::shm_unlink(name.data());
        set_cloexec(memory.get());
        if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) fail_memory(errno, bytes, "ftruncate");
        return memory;
    }
}

std::string refusal_of_memory(int descriptor, std::uint64_t bytes) {
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) return std::string("fstat: ") + std::strerror(errno);
    // Everything else that can be passed has a type: pshm_stat gives the permissions only.
    if ((status.st_mode & S_IFMT) != 0) return "its descriptor is not POSIX shared memory";
    if ((::fcntl(descriptor, F_GETFL) & O_ACCMODE) != O_RDWR) return "it cannot be written to";
    const std::uint64_t wanted = round_to_page(bytes);
    if (std::cmp_not_equal(status.st_size, wanted)) {
        return "it has " + std::to_string(status.st_size) + " bytes, not " + std::to_string(wanted);
    }
    return {};
}

std::uint64_t unreserved_memory(int, std::uint64_t) noexcept { return 0; }

void* map_shared_memory(int descriptor, std::uint64_t bytes) {
    void* const address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) fail_memory(errno, bytes, "mmap");
    return address;
}

void reserve_memory(int, std::uint64_t, std::uint64_t, std::uint64_t) {}

void discard_memory(int, std::uint64_t, std::uint64_t) noexcept {}

void populate_memory(std::uint8_t* begin, std::uint64_t size) noexcept {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    for (std::uint64_t at = 0; at < size; at += page) (void)static_cast<const volatile std::uint8_t*>(begin)[at];
}

int bind_memory_to_node(const void*, std::uint64_t, unsigned) noexcept { return 0; }

// ---- sockets -------------------------------------------------------------------------------------------------------------

const int kSend = MSG_DONTWAIT;
const int kReceive = MSG_DONTWAIT;

namespace {

// Between the call that made it and these, a fork in another thread can leave a copy with a child: there is no atomic way.
Descriptor make_ours(int number) noexcept {
    Descriptor socket(number);
    if (!socket) return socket;
    set_cloexec(number);
    const int yes = 1;
    ::setsockopt(number, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes);
    ::fcntl(number, F_SETFL, ::fcntl(number, F_GETFL) | O_NONBLOCK);
    return socket;
}

}  // namespace

Descriptor open_stream_socket() noexcept { return make_ours(::socket(AF_UNIX, SOCK_STREAM, 0)); }

Descriptor accept_stream_socket(int listener) noexcept { return make_ours(::accept(listener, nullptr, nullptr)); }

int bind_with_mode(int socket, const sockaddr_un& address, mode_t mode) noexcept {
    // The umask is the whole process's, and there is no other way: what other threads make meanwhile has no more than this.
    const mode_t before = ::umask(~mode & 0777);
    const int rc = ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    const int error_number = errno;
    ::umask(before);
    return rc == 0 ? 0 : error_number;
}

Descriptor own_received(int number) noexcept {
    set_cloexec(number);
    return Descriptor(number);
}

void name_connector(int) noexcept {}  // every name is a file's

Peer identify_peer(int socket) {
    Peer peer;
    gid_t group = 0;
    if (::getpeereid(socket, &peer.uid, &group) != 0) {
        fail_handshake(errno, std::string("cannot learn who the peer is: ") + std::strerror(errno));
    }
    socklen_t length = sizeof peer.pid;
    if (::getsockopt(socket, SOL_LOCAL, LOCAL_PEERPID, &peer.pid, &length) != 0) peer.pid = 0;
    if (peer.pid <= 0) return peer;
    // A queue with one event that is never taken out stays readable from then on.
    peer.process = Descriptor(::kqueue());
    if (!peer.process) fail_descriptor(errno, "cannot watch the peer");
    set_cloexec(peer.process.get());
    struct kevent exit{};
    EV_SET(&exit, peer.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, nullptr);
    if (::kevent(peer.process.get(), &exit, 1, nullptr, 0, nullptr) != 0) {
        peer.ended = errno == ESRCH;
        peer.process.reset();
    }
    return peer;
}

// A child has no copy of a kqueue: its number may be another's there (bsd/kern/kern_event.c).
void disown_process(Descriptor& process) noexcept { process.forget(); }

bool has_hung_up(int socket, int process, int) noexcept {
    // Without an event asked for, poll would not look at the socket at all (poll_nocancel in bsd/kern/sys_generic.c).
    std::array<pollfd, 2> entries{{{socket, POLLHUP, 0}, {process, POLLIN, 0}}};
    const int count = ::poll(entries.data(), entries.size(), 0);
    if (count < 0) return errno != EINTR && errno != EAGAIN;
    return count > 0 && ((entries[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0 || entries[1].revents != 0);
}

bool is_readable(int descriptor) noexcept {
    pollfd entry{descriptor, POLLIN, 0};
    return ::poll(&entry, 1, 0) != 0;
}

// ---- events --------------------------------------------------------------------------------------------------------------

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
