// Purpose: measure what two processes on two cores do together, and know where those cores were.
//
// Virtual CPUs float over the physical cores of a host, and a figure can be off by five times when they share a core or sit
// in different caches. So each repetition is bracketed by a raw ping-pong of two cache lines, and counts only if both
// brackets show the same placement; near (two cores of one cache) is preferred and waited for.
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
#include <new>
#include <vector>

#include "tachyon/ring/ring_segment.hpp"
#include "tachyon/wait/wait.hpp"

namespace bench {

using tachyon::cpu_relax;
using tachyon::now_ns;

inline constexpr unsigned kWatchdog = 600;  // seconds: nothing here runs longer

inline void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    ::sched_setaffinity(0, sizeof set, &set);
}

// Shared by both processes, zeroed, populated.
inline void* shared(std::size_t bytes) {
    void* const memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    return memory;
}

struct alignas(128) Line {
    std::atomic<std::uint64_t> value{0};
};

struct Control {
    Line ping, pong, ready, go, done;
    Line end_ns;       // set by the child
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

// Runs `here` on core 0 and `there` on core 1 in a second process, and says where they were before and after.
template <class Here, class There>
Placement pair(Control& control, Here here, There there) {
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
        const bool again = before != Placement::near && round < kTries;
        control.go.value = round << 1 | (again ? 1u : 0u);
        if (!again) break;
        ::usleep(15'000);
    }
    here();
    while (control.done.value.load() == 0) cpu_relax();
    const Placement after = classify(probe_here(control));
    int status = 0;
    ::waitpid(child, &status, 0);
    if (status != 0) {
        std::fprintf(stderr, "the second process failed: status %x\n", static_cast<unsigned>(status));
        std::exit(1);
    }
    return before == after ? before : Placement::changed;
}

inline double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::ranges::sort(values);
    return values[values.size() / 2];
}

}  // namespace bench
