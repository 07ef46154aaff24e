// What grows with what: many buses in a process, the time to make one, its memory, and the CPU of a receiver that sleeps.
#include <sys/resource.h>

#include <fstream>
#include <sstream>

#include "channels.hpp"
#include "programs.hpp"

namespace bench {
namespace {

void allow_many_descriptors() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

using Buses = std::vector<std::unique_ptr<Bus>>;

std::string path_of(const std::string& path, std::size_t i) { return path + "-" + std::to_string(i); }
Buses listen_all(const std::string& path, std::size_t count, std::uint64_t capacity) {
    Buses buses;
    for (std::size_t i = 0; i < count; ++i) buses.push_back(listen_at(path_of(path, i), capacity));
    return buses;
}
Buses connect_all(const std::string& path, std::size_t count) {
    Buses buses;
    for (std::size_t i = 0; i < count; ++i) buses.push_back(connect_to(path_of(path, i)));
    return buses;
}

// Messages of 32 bytes per second where a process has `count` buses and uses `used` of them in turn.
Sample many(Control& control, std::size_t count, std::size_t used, std::uint64_t capacity) {
    const std::string path = new_path();
    const std::uint64_t rounds = 2'000'000 / used;
    const Placement placement = pair(
        control,
        [&] {
            const Buses buses = listen_all(path, count, capacity);
            char message[32] = {};
            for (std::uint64_t round = 0; round < rounds * 5 / 4; ++round) {
                for (std::size_t i = 0; i < used; ++i) {
                    Status status;
                    while ((status = buses[i]->try_send(message, sizeof message, 1)) != Status::ok) {
                        wait_for_room(*buses[i], Wait::spin, status, sizeof message);
                    }
                }
            }
            while (control.done.value.load() == 0) cpu_relax();  // a peer that closes is another thing to measure
        },
        [&] {
            const Buses buses = connect_all(path, count);
            std::uint64_t start = 0;
            for (std::uint64_t round = 0; round < rounds * 5 / 4; ++round) {
                if (round == rounds / 4) start = now_ns();
                for (std::size_t i = 0; i < used; ++i) {
                    Frame frame;
                    Status status;
                    while ((status = buses[i]->try_peek(frame)) != Status::ok) {
                        wait_for_message(*buses[i], Wait::spin, status);
                    }
                    char message[32];
                    std::memcpy(message, frame.payload, sizeof message);
                    keep(message);
                    buses[i]->release(frame);
                }
            }
            control.elapsed_ns.value = now_ns() - start;
            control.done.value = 1;
        });
    const std::uint64_t timed = rounds * 5 / 4 - rounds / 4;
    const auto messages = static_cast<double>(timed * used);
    return {messages * 1e9 / static_cast<double>(control.elapsed_ns.value.load()), placement};
}

// Nanoseconds from "both begin" to "both have their Bus".
Sample set_up(Control& control, std::uint64_t capacity) {
    constexpr std::uint64_t kTimes = 50;
    const std::string path = new_path();
    Line* const lines = &control.messages;  // which round has begun; elapsed_ns: when the other side was done
    std::vector<double> times;
    const Placement placement = pair(
        control,
        [&] {
            for (std::uint64_t round = 1; round <= kTimes; ++round) {
                ::usleep(200);
                const std::uint64_t start = now_ns();
                lines->value = round;
                const auto bus = listen_at(path, capacity);
                const std::uint64_t here = now_ns();
                while (lines->value.load() == round) cpu_relax();
                times.push_back(static_cast<double>(std::max(here, control.elapsed_ns.value.load()) - start));
            }
        },
        [&] {
            for (std::uint64_t round = 1; round <= kTimes; ++round) {
                while (lines->value.load() != round) cpu_relax();
                const auto bus = connect_to(path);
                control.elapsed_ns.value = now_ns();
                lines->value = 0;
            }
        });
    return {median(times), placement};
}

std::uint64_t kib_of(const char* file, const std::string& key) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with(key)) return std::stoull(line.substr(key.size()));
    }
    return 0;
}

// Bytes of a process for each of its buses beyond their rings: resident memory and page tables.
Sample memory(Control& control, std::uint64_t capacity) {
    constexpr std::size_t kCount = 200;
    const std::string path = new_path();
    Sample sample;
    sample.placement = pair(
        control,
        [&] {
            const auto kib = [] {
                return kib_of("/proc/self/status", "VmRSS:") + kib_of("/proc/self/status", "VmPTE:");
            };
            const std::uint64_t before = kib();
            const Buses buses = listen_all(path, kCount, capacity);
            sample.value = static_cast<double>(kib() - before) * 1024 / kCount - static_cast<double>(capacity);
        },
        [&] {
            const Buses buses = connect_all(path, kCount);
            while (control.done.value.load() == 0 && buses[0]->check() == Status::ok) ::usleep(10'000);
        });
    return sample;
}

double cpu_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Share of a core that a receiver takes while nothing comes.
Sample idle(Control& control, std::size_t seconds) {
    const std::string path = new_path();
    Sample sample;
    sample.placement = pair(
        control,
        [&] {
            const auto bus = connect_to(path);
            Frame frame;
            (void)bus->try_peek(frame);  // from now on this side is the consumer
            const double before = cpu_seconds();
            const std::uint64_t start = now_ns();
            while (now_ns() - start < seconds * 1'000'000'000) (void)bus->wait_readable(tachyon::kNever);
            sample.value = (cpu_seconds() - before) * 1e9 / static_cast<double>(now_ns() - start);
        },
        [&] {
            const auto bus = listen_at(path, 1 << 16);
            ::sleep(static_cast<unsigned>(seconds) + 1);
        });
    return sample;
}

}  // namespace

// buses COUNT USED [REPETITIONS [CAPACITY]]
int run_buses(Control& control, const Arguments& arguments) {
    allow_many_descriptors();
    const std::size_t count = number(arguments, 1, 1), used = number(arguments, 2, 1);
    const std::uint64_t capacity = number(arguments, 4, 1 << 16);
    const std::string what = "buses:" + std::to_string(count) + ":" + std::to_string(used);
    for (std::size_t i = 0; i < number(arguments, 3, 5); ++i) {
        print(what, {32, capacity}, many(control, count, used, capacity));
    }
    return 0;
}

// set_up [REPETITIONS [CAPACITY]]
int run_set_up(Control& control, const Arguments& arguments) {
    const std::uint64_t capacity = number(arguments, 2, 1 << 16);
    for (std::size_t i = 0; i < number(arguments, 1, 5); ++i) print("set_up", {0, capacity}, set_up(control, capacity));
    return 0;
}

// memory [REPETITIONS [CAPACITY]]
int run_memory(Control& control, const Arguments& arguments) {
    allow_many_descriptors();
    const std::uint64_t capacity = number(arguments, 2, 1 << 16);
    for (std::size_t i = 0; i < number(arguments, 1, 1); ++i) print("memory", {0, capacity}, memory(control, capacity));
    return 0;
}

// idle [SECONDS]
int run_idle(Control& control, const Arguments& arguments) {
    print("idle", {0, 1 << 16}, idle(control, number(arguments, 1, 10)));
    return 0;
}

}  // namespace bench
