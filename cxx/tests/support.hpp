// Purpose: what several test files need: processes and threads that cannot outlive or outwait a test, memory with fences around
//   it, counts of what may leak.
// Threads: Catch2's assertions belong to the main thread of the main process. Threads and children report through the value
//   they return, and say why on stderr.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "long_form.hpp"
#include "tachyon/bus.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/ring/ring.hpp"
#include "tachyon/ring/ring_segment.hpp"
#include "tachyon/wait/wait.hpp"

// ThreadSanitizer sees one process and one mapping of a memory, and what it makes of a fork is undefined. Tests that fork are
// left out under it; the rules they test are tested with threads as well.
#if defined(__SANITIZE_THREAD__)
#define TACHYON_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TACHYON_TEST_TSAN 1
#endif
#endif
#ifndef TACHYON_TEST_TSAN
#define TACHYON_TEST_TSAN 0
#endif

namespace tachyon::test {

inline std::uint64_t in_ms(std::uint64_t milliseconds) { return now_ns() + milliseconds * kMillisecond; }

inline void sleep_us(unsigned microseconds) {
    const timespec time{microseconds / 1'000'000, static_cast<long>(microseconds % 1'000'000) * 1000};
    ::nanosleep(&time, nullptr);
}

// Waits for what must come. False, after half a minute, means that it does not.
template <class Condition>
bool eventually(Condition condition, std::uint64_t patience_ms = 30'000) {
    const std::uint64_t until = in_ms(patience_ms);
    while (!condition()) {
        if (now_ns() > until) return false;
        sleep_us(200);
    }
    return true;
}

// splitmix64: small, and the same everywhere.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
    bool one_in(std::uint64_t n) { return below(n) == 0; }

  private:
    std::uint64_t state_;
};

// ---- leaks ---------------------------------------------------------------------------------------------------------------

inline std::size_t count_descriptors() {
    std::size_t count = 0;
    DIR* const folder = ::opendir("/proc/self/fd");
    if (folder == nullptr) return 0;
    while (const dirent* const entry = ::readdir(folder)) count += entry->d_name[0] != '.';
    ::closedir(folder);
    return count - 1;  // the folder's own
}

inline std::size_t count_segment_mappings() {
    std::size_t count = 0;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) count += line.find("/memfd:tachyon") != std::string::npos;
    return count;
}

struct Held {
    std::size_t descriptors = count_descriptors();
    std::size_t mappings = count_segment_mappings();
    friend bool operator==(const Held&, const Held&) = default;
};
inline std::ostream& operator<<(std::ostream& out, const Held& held) {
    return out << held.descriptors << " descriptors and " << held.mappings << " mappings";
}

// ---- places --------------------------------------------------------------------------------------------------------------

// A folder of its own for a test's sockets, removed with everything in it (one level).
class Folder {
  public:
    Folder() {
        const char* const base = std::getenv("TMPDIR");
        path_ = std::string(base != nullptr && std::strlen(base) < 40 ? base : "/tmp") + "/tachyon-test-XXXXXX";
        if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp: " + path_);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        for (const std::string& name : entries()) {
            const std::string each = path_ + "/" + name;
            if (::unlink(each.c_str()) != 0) ::rmdir(each.c_str());
        }
        ::rmdir(path_.c_str());
    }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string file(const std::string& name = "bus") const { return path_ + "/" + name; }
    [[nodiscard]] std::vector<std::string> entries() const {
        std::vector<std::string> names;
        DIR* const folder = ::opendir(path_.c_str());
        if (folder == nullptr) return names;
        while (const dirent* const entry = ::readdir(folder)) {
            const std::string name = entry->d_name;
            if (name != "." && name != "..") names.push_back(name);
        }
        ::closedir(folder);
        return names;
    }

  private:
    std::string path_;
};

// Has the first bytes of a file reserved and touched, as a peer has those of what it passes.
inline bool reserve(int descriptor, std::uint64_t bytes) {
    const std::vector<char> zeros(1 << 20);
    for (std::uint64_t done = 0; done < bytes;) {
        const ssize_t n = ::pwrite(descriptor, zeros.data(), std::min<std::uint64_t>(zeros.size(), bytes - done),
                                   static_cast<off_t>(done));
        if (n <= 0) return false;
        done += static_cast<std::uint64_t>(n);
    }
    return true;
}

inline bool exists(const std::string& path) {
    struct stat status{};
    return ::lstat(path.c_str(), &status) == 0;
}

// ---- processes -----------------------------------------------------------------------------------------------------------

// A child that ends with its parent, with its watchdog, or with what it does, and is always reaped. 0: it was content.
class Child {
  public:
    template <class Body>
    explicit Child(Body body, unsigned watchdog_seconds = kWatchdogSeconds - 10) {
        const pid_t parent = ::getpid();
        std::fflush(nullptr);
        pid_ = ::fork();
        if (pid_ < 0) throw std::runtime_error("fork");
        if (pid_ > 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(98);
        for (const int number : {SIGALRM, SIGSEGV, SIGBUS, SIGABRT, SIGTERM, SIGFPE, SIGILL, SIGINT}) {
            ::signal(number, SIG_DFL);  // Catch2's own would report for the parent
        }
        ::alarm(watchdog_seconds * (long_form() ? 60 : 1));
        int code = 97;
        try {
            code = body();
        } catch (const std::exception& error) {
            std::fprintf(stderr, "child: %s\n", error.what());
        } catch (...) {}
        std::fflush(nullptr);
        ::_exit(code);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        kill();
        wait();
    }

    [[nodiscard]] pid_t pid() const { return pid_; }
    void signal(int number) const {
        if (!reaped_) ::kill(pid_, number);
    }
    void kill() const { signal(SIGKILL); }
    // Its exit code, or minus the signal that ended it.
    int wait() {
        while (!reaped_) {
            const pid_t pid = ::waitpid(pid_, &status_, 0);
            reaped_ = pid == pid_ || (pid < 0 && errno != EINTR);
        }
        return WIFEXITED(status_) ? WEXITSTATUS(status_) : WIFSIGNALED(status_) ? -WTERMSIG(status_) : -999;
    }
    // Dead, but not yet reaped: a zombie.
    [[nodiscard]] bool has_ended() const {
        siginfo_t info{};
        return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_;
    }

  private:
    pid_t pid_ = -1;
    int status_ = 0;
    bool reaped_ = false;
};

// For children: says what went wrong, where, and goes on to the exit code.
#define TACHYON_CHILD_CHECK(condition)                                                            \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            std::fprintf(stderr, "child: %s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                                             \
        }                                                                                         \
    } while (false)

// A T that parent and children see.
template <class T>
class Shared {
  public:
    Shared() {
        void* const memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        value_ = new (memory) T{};
    }
    Shared(const Shared&) = delete;
    Shared& operator=(const Shared&) = delete;
    ~Shared() { ::munmap(value_, sizeof(T)); }
    T* operator->() const { return value_; }
    T& operator*() const { return *value_; }

  private:
    T* value_;
};

// ---- rings ---------------------------------------------------------------------------------------------------------------

inline std::size_t page_up(std::size_t bytes) { return (bytes + 4095) & ~std::size_t{4095}; }

// Memory for a ring, with pages on both sides that nobody may touch; bytes between the data and the page below are watched.
// Shared, so that a child may use it too.
class FencedRing {
  public:
    explicit FencedRing(std::uint64_t capacity, Barrier barrier = Barrier::locked, std::uint64_t bulk = kBulk)
        : capacity_(capacity), bulk_(bulk), barrier_(barrier) {
        const std::size_t page = 4096;
        bytes_ = page + kHeaderBytes + page + page_up(capacity) + page;
        void* const memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::uint8_t*>(memory);
        header_ = new (base_ + page) SegmentHeader{};
        below_ = base_ + page + kHeaderBytes + page;
        data_ = below_ + page_up(capacity) - capacity;
        std::memset(below_, kCanary, static_cast<std::size_t>(data_ - below_));
        for (std::uint8_t* const fence : {base_, below_ - page, data_ + capacity}) {
            if (::mprotect(fence, page, PROT_NONE) != 0) throw std::bad_alloc();
        }
    }
    FencedRing(const FencedRing&) = delete;
    FencedRing& operator=(const FencedRing&) = delete;
    ~FencedRing() { ::munmap(base_, bytes_); }

    [[nodiscard]] RingMemory memory() const { return {header_, data_, capacity_, barrier_, {}, bulk_}; }
    [[nodiscard]] SegmentHeader& header() const { return *header_; }
    [[nodiscard]] std::uint8_t* data() const { return data_; }
    [[nodiscard]] std::uint64_t capacity() const { return capacity_; }
    [[nodiscard]] std::atomic<std::uint64_t>& word(std::uint64_t position) const {
        return detail::word_at(data_ + (position & (capacity_ - 1)));
    }
    // How many lines could be taken for a header.
    [[nodiscard]] std::uint64_t dirty_lines() const {
        std::uint64_t count = 0;
        for (std::uint64_t offset = 0; offset < capacity_; offset += kLine)
            count += word(offset).load(std::memory_order_relaxed) != 0;
        return count;
    }
    // How many could be, of those behind `position` that the producer takes for clean. All of the ring is free.
    [[nodiscard]] std::uint64_t dirty_lines(std::uint64_t position, std::uint64_t dirty_from,
                                            std::uint64_t dirty_to) const {
        std::uint64_t count = 0;
        for (std::uint64_t at = position; at < position + capacity_; at += kLine)
            count += (at < dirty_from || at >= dirty_to) && word(at).load(std::memory_order_relaxed) != 0;
        return count;
    }
    [[nodiscard]] bool fence_intact() const {
        for (const std::uint8_t* byte = below_; byte < data_; ++byte) {
            if (*byte != kCanary) return false;
        }
        return true;
    }
    void wipe() {
        std::memset(data_, 0, capacity_);
        new (header_) SegmentHeader{};
    }

  private:
    static constexpr std::uint8_t kCanary = 0xC5;
    std::uint64_t capacity_, bulk_;
    Barrier barrier_;
    std::size_t bytes_ = 0;
    std::uint8_t* base_ = nullptr;
    std::uint8_t* below_ = nullptr;
    std::uint8_t* data_ = nullptr;
    SegmentHeader* header_ = nullptr;
};

// ---- buses ---------------------------------------------------------------------------------------------------------------

// Both ends of a bus in one process, without the handshake. `first` is the listener's.
struct BusPair {
    std::unique_ptr<Bus> first, second;
    SegmentHeader* header = nullptr;  // as the first end sees it
    std::uint8_t* data = nullptr;
};

inline BusPair make_pair(std::uint64_t capacity, Barrier barrier = Barrier::locked, std::uint64_t max_large = 0) {
    int sockets[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) != 0)
        throw std::runtime_error("socketpair");
    Descriptor near(sockets[0]), far(sockets[1]);
    RingSegment ours = RingSegment::create(capacity);
    RingSegment theirs = RingSegment::attach(Descriptor(::fcntl(ours.descriptor(), F_DUPFD_CLOEXEC, 0)), capacity);
    ours.close_descriptor();
    theirs.close_descriptor();
    if (barrier == Barrier::membarrier && !register_membarrier()) throw std::runtime_error("no membarrier here");
    Connection listener(std::move(near), Side::listener), connector(std::move(far), Side::connector);
    listener.set_barrier(barrier);
    connector.set_barrier(barrier);
    listener.set_max_large(max_large);
    connector.set_max_large(max_large);
    BusPair pair;
    pair.header = ours.header();
    pair.data = ours.ring(barrier).data;
    pair.first = std::make_unique<Bus>(std::move(listener), std::move(ours));
    pair.second = std::make_unique<Bus>(std::move(connector), std::move(theirs));
    return pair;
}

inline ListenOptions listen_options(std::uint64_t capacity = 4096, std::uint64_t patience_ms = 30'000) {
    ListenOptions options;
    options.capacities = {capacity};
    options.deadline = in_ms(patience_ms);
    return options;
}

inline ConnectOptions connect_options(std::uint64_t patience_ms = 30'000) {
    ConnectOptions options;
    options.deadline = in_ms(patience_ms);
    return options;
}

// Waits until a frame comes or something else ends the wait. empty: the deadline.
inline Status receive(Bus& bus, Frame& frame, std::uint64_t deadline) {
    for (;;) {
        const Status status = bus.try_peek(frame);
        if (status != Status::empty) return status;
        const Status waited = bus.wait_readable(deadline);
        if (waited != Status::ok && waited != Status::empty && waited != Status::interrupted) return waited;
        if (now_ns() >= deadline) return bus.try_peek(frame);
    }
}

inline Status send(Bus& bus, const void* data, std::uint64_t size, std::uint32_t type_id, std::uint64_t correlation_id,
                   std::uint64_t deadline) {
    for (;;) {
        const Status status = bus.try_send(data, size, type_id, correlation_id);
        if (status != Status::full) return status;
        const Status waited = bus.wait_writable(size, deadline);
        if (waited != Status::ok && waited != Status::full && waited != Status::interrupted) return waited;
        if (now_ns() >= deadline) return Status::full;
    }
}

}  // namespace tachyon::test

// Catch2 prints a Status as a name that says something.
namespace tachyon {
inline std::ostream& operator<<(std::ostream& out, Status status) {
    constexpr const char* kNames[] = {"ok",         "empty",        "full",     "interrupted",  "too_large",
                                      "wrong_side", "claim_open",   "no_claim", "peer_closed",  "peer_dead",
                                      "corrupt",    "closed",       "forked",   "unknown_call", "busy",
                                      "bad_type",   "peer_aborted", "no_memory"};
    const auto number = static_cast<std::size_t>(status);
    return number < std::size(kNames) ? out << kNames[number] : out << "Status " << number;
}
}  // namespace tachyon
