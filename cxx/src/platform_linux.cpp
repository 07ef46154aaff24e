// Linux: sealed memfds, abstract addresses, pidfds, epoll with a timerfd.
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "platform.hpp"
#include "tachyon/error.hpp"
#include "tachyon/link/event_queue.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/wait/wait.hpp"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace tachyon {

// ---- memory --------------------------------------------------------------------------------------------------------------

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::optional<std::uint64_t> read_number(const std::string& path) {
    std::ifstream file(path);
    std::uint64_t value = 0;
    if (file >> value) return value;
    return std::nullopt;  // missing, or "max"
}

// What the memory cgroup of this process, and those above it, still allow.
std::uint64_t cgroup_bytes_left() {
    std::uint64_t left = UINT64_MAX;
    const auto ask = [&left](const std::string& folder, const char* limit, const char* usage) {
        const auto most = read_number(folder + limit);
        const auto used = read_number(folder + usage);
        if (most && used) left = std::min(left, *most > *used ? *most - *used : 0);
    };
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const auto second = line.find(':', line.find(':') + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(line.find(':') + 1, second - line.find(':') - 1);
        const bool v2 = controllers.empty();
        if (!v2 && controllers != "memory") continue;
        for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
            const std::string folder = (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory") + path;
            if (v2) {
                ask(folder, "/memory.max", "/memory.current");
            } else {
                ask(folder, "/memory.limit_in_bytes", "/memory.usage_in_bytes");
            }
            if (path.rfind('/') == std::string::npos) break;
        }
    }
    return left;
}

// A memfd takes its pages from the machine without asking anybody: without this look a reservation that does not fit would
// end in the out-of-memory killer instead of an error.
void check_available(std::uint64_t bytes) {
    std::uint64_t available = UINT64_MAX;
    std::ifstream info("/proc/meminfo");
    for (std::string line; std::getline(info, line);) {
        unsigned long long kib = 0;
        if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kib) == 1) {
            available = std::uint64_t{kib} * 1024;
            break;
        }
    }
    available = std::min(available, cgroup_bytes_left());
    if (bytes > available) {
        fail_memory(ENOMEM, bytes, std::to_string(available) + " bytes are available");
    }
}

// In pieces, because a signal makes the kernel give up and undo the whole call.
}  // namespace

void reserve_memory(int descriptor, std::uint64_t begin, std::uint64_t size, std::uint64_t total) {
    constexpr std::uint64_t kMostAtOnce = 1 << 20, kLeastAtOnce = 4096;
    std::uint64_t piece = kMostAtOnce;
    for (std::uint64_t done = 0; done < size;) {
        const std::uint64_t next = std::min(piece, size - done);
        if (::fallocate(descriptor, 0, static_cast<off_t>(begin + done), static_cast<off_t>(next)) == 0) {
            done += next;
        } else if (errno == EINTR) {
            piece = std::max(kLeastAtOnce, piece / 2);
        } else {
            fail_memory(errno, total, "fallocate");
        }
    }
}

void populate_memory(std::uint8_t* begin, std::uint64_t size) noexcept {
    constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, from Linux 5.14
    if (::madvise(begin, size, kPopulateWrite) == 0) return;
    for (std::uint64_t at = 0; at < size; at += 4096) (void)static_cast<const volatile std::uint8_t*>(begin)[at];
}

void discard_memory(int descriptor, std::uint64_t begin, std::uint64_t size) noexcept {
    (void)::fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                      static_cast<off_t>(size));
}

Descriptor make_shared_memory(std::uint64_t bytes) {
    check_available(bytes);
    Descriptor memory(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory) {
        if (errno == EMFILE || errno == ENFILE) fail_descriptor(errno, "memfd_create");
        fail_memory(errno, bytes, "memfd_create");
    }
    if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) fail_memory(errno, bytes, "ftruncate");
    if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) fail_memory(errno, bytes, "sealing");
    return memory;
}

std::string refusal_of_memory(int descriptor, std::uint64_t bytes) {
    // The kind first: only a memfd has seals, and no call below can block on anything else that was passed.
    const int seals = ::fcntl(descriptor, F_GET_SEALS);
    if (seals < 0) return "its descriptor is not a memfd";
    if ((seals & kSeals) != kSeals) return "it can still be resized (seals " + std::to_string(seals) + ")";
    const int access = ::fcntl(descriptor, F_GETFL);
    if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0 || (access & O_ACCMODE) != O_RDWR) {
        return "it cannot be written to";
    }
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) return std::string("fstat: ") + std::strerror(errno);
    // A memfd shorter than announced maps without complaint and then raises SIGBUS.
    if (std::cmp_not_equal(status.st_size, bytes)) {
        return "it has " + std::to_string(status.st_size) + " bytes, not " + std::to_string(bytes);
    }
    return {};
}

std::uint64_t unreserved_memory(int descriptor, std::uint64_t bytes) noexcept {
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) return bytes;
    const std::uint64_t reserved = static_cast<std::uint64_t>(status.st_blocks) * 512;
    if (reserved < bytes) return bytes - reserved;
    return 0;
}

void* map_shared_memory(int descriptor, std::uint64_t bytes) {
    void* const address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) fail_memory(errno, bytes, "mmap");
    return address;
}

int bind_memory_to_node(const void* memory, std::uint64_t bytes, unsigned node) noexcept {
    constexpr unsigned kBits = 8 * sizeof(unsigned long), kWords = 1024 / kBits;
    if (node >= kBits * kWords) return EINVAL;
    std::array<unsigned long, kWords> nodes{};
    nodes[node / kBits] = 1ul << (node % kBits);
    const long rc = ::syscall(SYS_mbind, memory, bytes, MPOL_PREFERRED, nodes.data(), kBits * kWords + 1, MPOL_MF_MOVE);
    return rc == 0 || errno == ENOSYS ? 0 : errno;
}

// ---- sockets -------------------------------------------------------------------------------------------------------------

const int kSend = MSG_NOSIGNAL | MSG_DONTWAIT;
const int kReceive = MSG_CMSG_CLOEXEC | MSG_DONTWAIT;

Descriptor open_stream_socket() noexcept {
    return Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

Descriptor accept_stream_socket(int listener) noexcept {
    return Descriptor(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

namespace {

struct Binding {
    int socket;
    const sockaddr_un& address;
    int error_number = 0;
};

int bind_without_umask(void* argument) {
    auto& binding = *static_cast<Binding*>(argument);
    ::umask(0);
    const auto* const address = reinterpret_cast<const sockaddr*>(&binding.address);
    if (::bind(binding.socket, address, sizeof binding.address) != 0) binding.error_number = errno;
    return 0;
}

bool umask_takes_from(mode_t mode) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        unsigned mask = 0;
        if (std::sscanf(line.c_str(), "Umask: %o", &mask) == 1) return (mode & mask) != 0;
    }
    return true;
}

}  // namespace

int bind_with_mode(int socket, const sockaddr_un& address, mode_t mode) noexcept {
    if (::fchmod(socket, mode) != 0) return errno;  // what bind gives the file, less the umask
    Binding binding{socket, address};
    if (!umask_takes_from(mode)) {
        return ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
    }
    // The umask is the whole process's. A child that shares all but that, and the current folder, has one of its own. As vfork,
    // it runs alone until it ends; it has no exit signal, so that nobody else's wait() finds it.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    alignas(16) std::array<char, 65536> stack;
    const pid_t child =
        ::clone(bind_without_umask, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | CLONE_FILES, &binding);
    int status = -1;
    if (child < 0) {
        binding.error_number = errno;
    } else if (::waitpid(child, &status, __WCLONE) != child || status != 0) {
        binding.error_number = ECHILD;  // it was killed
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return binding.error_number;
}

Descriptor own_received(int number) noexcept { return Descriptor(number); }

void name_connector(int socket) noexcept {
    // Not std::random_device: where that opens a file, it throws when there are no descriptors left.
    std::array<unsigned, 2> random{};
    (void)::getentropy(random.data(), sizeof random);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, kConnectorName.data(), kConnectorName.size());
    const int digits =
        std::snprintf(address.sun_path + kConnectorName.size(), sizeof address.sun_path - kConnectorName.size(),
                      "%d-%08x%08x", ::getpid(), random[0], random[1]);
    const auto length = offsetof(sockaddr_un, sun_path) + kConnectorName.size() + static_cast<std::size_t>(digits);
    // Without a name the handshake works all the same; it only tells the listener less.
    (void)::bind(socket, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(length));
}

namespace {

// select goes by the table of open files, where poll goes by RLIMIT_NOFILE: even with a limit of 0 it answers.
bool is_readable_by_select(int descriptor) noexcept {
    constexpr int kBits = 8 * sizeof(unsigned long);
    const auto words = static_cast<std::size_t>(descriptor / kBits) + 1;  // a fd_set ends at 1024
    const std::unique_ptr<unsigned long[]> bits(new (std::nothrow) unsigned long[words]());
    if (!bits) return true;
    for (;;) {
        bits[words - 1] = 1ul << (descriptor % kBits);
        timeval at_once{};
        const int count = ::select(descriptor + 1, reinterpret_cast<fd_set*>(bits.get()), nullptr, nullptr, &at_once);
        if (count >= 0 || errno != EINTR) return count != 0;
    }
}

// An empty send fails once nobody is left to read, whatever may still be read here.
bool has_hung_up_by_other_means(int socket, int process) noexcept {
    if (::send(socket, "", 0, kSend) < 0 && errno != EAGAIN && errno != EINTR) return true;
    return process >= 0 && is_readable_by_select(process);
}

// /proc/PID/stat, "PID (name) state …", is of that process for ever, whoever gets its number. A process whose first thread has
// ended before the others looks like a zombie too, but has more than one thread, field 20.
Descriptor open_record(pid_t pid) {
    return Descriptor(::open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
}

bool has_ended(int record) noexcept {
    std::array<char, 1024> text;
    const ssize_t n = ::pread(record, text.data(), text.size(), 0);
    if (n < 0) return errno != EINTR && errno != ENOMEM;  // ESRCH: it has been reaped
    std::string_view rest(text.data(), static_cast<std::size_t>(n));
    rest.remove_prefix(std::min(rest.size(), rest.rfind(')') + 2));  // a name may have anything in it
    if (rest.empty()) return true;
    if (rest[0] != 'Z' && rest[0] != 'X') return false;
    for (int field = 3; field < 20; ++field) rest.remove_prefix(std::min(rest.size(), rest.find(' ') + 1));
    return rest.substr(0, rest.find(' ')) == "1";
}

}  // namespace

Peer identify_peer(int socket) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        fail_handshake(errno, std::string("cannot learn who the peer is: ") + std::strerror(errno));
    }
    // The socket's own pidfd cannot be of another process that got the same pid; older kernels (< 6.5) have only the pid.
    Peer peer{credentials.pid, credentials.uid, {}, {}};
    int number = -1;
    length = sizeof number;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &number, &length) == 0) {
        peer.process = Descriptor(number);
        return peer;
    }
    if (errno == ESRCH || errno == EINVAL) {  // the kernel knows the question: there is no such process any more
        peer.ended = true;
        return peer;
    }
    const auto starved = [] { return errno == EMFILE || errno == ENFILE; };
    if (!starved() && peer.pid > 0) peer.process = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
    if (peer.process) return peer;
    peer.ended = errno == ESRCH;
    if (peer.ended) return peer;
    if (!starved() && peer.pid > 0) peer.record = open_record(peer.pid);  // a sandbox may forbid both of the above
    if (peer.record) return peer;
    if (starved()) fail_descriptor(errno, "cannot watch the peer");
    peer.ended = peer.pid > 0 && ::kill(peer.pid, 0) != 0 && errno == ESRCH;
    return peer;
}

void disown_process(Descriptor& process) noexcept { process.reset(); }

bool has_hung_up(int socket, int process, int record) noexcept {
    // Hang-up is reported whether or not the peer left bytes in the socket.
    std::array<pollfd, 2> entries{{{socket, POLLRDHUP, 0}, {process, POLLIN, 0}}};
    const int count = ::poll(entries.data(), entries.size(), 0);
    if (count > 0 || (count < 0 && has_hung_up_by_other_means(socket, process))) return true;
    return record >= 0 && has_ended(record);
}

bool is_readable(int descriptor) noexcept {
    pollfd entry{descriptor, POLLIN, 0};
    const int count = ::poll(&entry, 1, 0);
    return count < 0 ? is_readable_by_select(descriptor) : count > 0;
}

// ---- events --------------------------------------------------------------------------------------------------------------

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
