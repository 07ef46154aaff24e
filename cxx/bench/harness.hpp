// Purpose: measure what two processes on two cores do together, and know where those cores were.
//
// Virtual CPUs float over the physical cores of a host, and a figure can be off by five times when they share a core or sit
// in different caches. So each repetition is bracketed by a raw ping-pong of two cache lines, and counts only if both
// brackets show the same placement; near (two cores of one cache) is preferred and waited for, where it ever comes.
#pragma once

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>
#include <vector>

#include "tachyon/wait/wait.hpp"

namespace bench {

using tachyon::cpu_relax;
using tachyon::now_ns;

inline constexpr unsigned kWatchdog = 120;  // seconds: no repetition runs longer

inline unsigned long setting(const char* name, unsigned long otherwise) {
    const char* const text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoul(text, nullptr, 10);
}

// One of the two cores, 0 or 1 if nobody says otherwise.
inline void pin(int side) {
    cpu_set_t set;
    CPU_ZERO(&set);
    const unsigned long core = side == 0 ? setting("TACHYON_BENCH_CORE_0", 0) : setting("TACHYON_BENCH_CORE_1", 1);
    if (core < CPU_SETSIZE) CPU_SET(core, &set);  // NOLINT(clang-analyzer-security.ArrayBound): compared here
    ::sched_setaffinity(0, sizeof set, &set);
}

// Maps every page into this process: a forked child would otherwise take a fault for each in the middle of what is timed.
inline void touch(void* memory, std::size_t bytes) {
#ifdef MADV_POPULATE_WRITE
    if (::madvise(memory, bytes, MADV_POPULATE_WRITE) == 0) return;
#endif
    auto* const page = static_cast<volatile std::uint8_t*>(memory);
    for (std::size_t i = 0; i < bytes; i += 4096) page[i] = page[i];
}

// Shared by both processes, zeroed, populated; unmapped with its owner.
class Shared {
  public:
    explicit Shared(std::size_t bytes) : bytes_(bytes) {
        memory_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory_ == MAP_FAILED) std::abort();
    }
    Shared(const Shared&) = delete;
    Shared& operator=(const Shared&) = delete;
    ~Shared() { ::munmap(memory_, bytes_); }
    [[nodiscard]] void* get() const { return memory_; }
    void touch() const { bench::touch(memory_, bytes_); }

  private:
    void* memory_;
    std::size_t bytes_;
};

struct alignas(128) Line {
    std::atomic<std::uint64_t> value{0};
};

// What the child has to say goes through elapsed_ns and messages.
struct Control {
    Line ping, pong, ready, go, done;
    Line elapsed_ns, messages;
    double probe = 0;  // ns, of the last bracket
};

enum class Placement { same_core, near, far, changed };

inline const char* name(Placement placement) {
    return placement == Placement::same_core ? "same core"
           : placement == Placement::near    ? "near"
           : placement == Placement::far     ? "far"
                                             : "changed";
}

// Bounds seen on x86 servers: siblings of one core 20 … 70 ns, cores of one cache 90 … 200 ns.
inline Placement classify(double round_trip_ns) {
    return round_trip_ns < 80 ? Placement::same_core : round_trip_ns < 220 ? Placement::near : Placement::far;
}

inline constexpr int kProbeTrips = 3000;
inline constexpr std::uint64_t kTries = 20;  // of 15 ms each, for a near placement

inline double probe_here(Control& control) {
    std::uint64_t n = control.ping.value.load();
    const std::uint64_t start = now_ns();
    for (int i = 0; i < kProbeTrips; ++i) {
        control.ping.value.store(++n, std::memory_order_release);
        while (control.pong.value.load(std::memory_order_acquire) != n) {}
    }
    return static_cast<double>(now_ns() - start) / kProbeTrips;
}

inline void probe_there(Control& control) {
    std::uint64_t n = control.pong.value.load();
    for (int i = 0; i < kProbeTrips; ++i) {
        ++n;
        while (control.ping.value.load(std::memory_order_acquire) != n) {}
        control.pong.value.store(n, std::memory_order_release);
    }
}

using Part = std::function<void()>;

// Runs `here` on core 0 and `there` on core 1 in a second process, and says where they were before and after.
inline Placement pair(Control& control, const Part& here, const Part& there) {
    // Where near never came in two whole rounds it is not waited for any more: there are machines without it.
    static int rounds_in_vain = 0;
    const std::uint64_t tries = rounds_in_vain < 2 ? setting("TACHYON_BENCH_TRIES", kTries) : 1;
    new (&control) Control;
    std::fflush(stdout);
    const pid_t child = ::fork();
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::alarm(kWatchdog);
        pin(1);
        control.ready.value = 1;
        for (std::uint64_t round = 1;; ++round) {
            probe_there(control);
            std::uint64_t order = 0;
            while (((order = control.go.value.load()) >> 1) != round) cpu_relax();
            if ((order & 1) == 0) break;
            ::usleep(15'000);
        }
        there();
        control.done.value = 1;
        probe_there(control);
        ::_exit(0);
    }
    ::alarm(kWatchdog);
    pin(0);
    while (control.ready.value.load() == 0) cpu_relax();
    Placement before{};
    // Asleep for a moment, the two often come back on other cores.
    for (std::uint64_t round = 1;; ++round) {
        before = classify(control.probe = probe_here(control));
        const bool again = before != Placement::near && round < tries;
        control.go.value = round << 1 | (again ? 1u : 0u);
        if (!again) break;
        ::usleep(15'000);
    }
    rounds_in_vain = before == Placement::near ? 0 : rounds_in_vain + 1;
    here();
    int status = 0;
    for (std::uint64_t spins = 0; control.done.value.load() == 0; ++spins) {
        cpu_relax();
        if (spins % (1u << 20) == 0 && ::waitpid(child, &status, WNOHANG) == child) break;  // it failed; do not hang
    }
    if (control.done.value.load() == 0) {
        std::fprintf(stderr, "the second process failed: status %x\n", static_cast<unsigned>(status));
        std::exit(1);
    }
    const Placement after = classify(probe_here(control));
    ::waitpid(child, &status, 0);
    ::alarm(0);
    return before == after ? before : Placement::changed;
}

inline double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::ranges::sort(values);
    return values[values.size() / 2];
}

}  // namespace bench
