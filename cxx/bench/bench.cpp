// The speed of the ring by itself, two pinned processes, next to what it is compared with. Prints one JSON object per
// measured repetition: {"what": …, "value": …, "placement": …}. bench/targets.py turns them into ratios.
//
//   tachyon_bench WHAT [REPETITIONS]    without arguments it lists what there is
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <map>
#include <string>

#if __has_include(<boost/lockfree/spsc_queue.hpp>)
#include <boost/lockfree/spsc_queue.hpp>
#define HAVE_BOOST 1
#endif

#include "harness.hpp"
#include "tachyon/bus.hpp"
#include "tachyon/ring/ring_segment.hpp"
#include "tachyon/rpc.hpp"

namespace {

using bench::Control;
using bench::cpu_relax;
using bench::now_ns;
using tachyon::Barrier;
using tachyon::Bus;
using tachyon::Consumer;
using tachyon::Frame;
using tachyon::kNever;
using tachyon::Producer;
using tachyon::RingSegment;
using tachyon::Status;

constexpr std::uint64_t kRing = 1 << 20;

struct Result {
    double value;
    bench::Placement placement;
};

// The median of 20 chunks: a short change of placement in the middle does not show.
template <class Once>
double round_trip(std::size_t trips, Once once) {
    for (std::size_t i = 0; i < trips / 10; ++i) once();
    std::vector<double> chunks;
    const std::size_t chunk_trips = trips / 20;
    for (int chunk = 0; chunk < 20; ++chunk) {
        const std::uint64_t start = now_ns();
        for (std::size_t i = 0; i < chunk_trips; ++i) once();
        chunks.push_back(static_cast<double>(now_ns() - start) / static_cast<double>(chunk_trips));
    }
    return bench::median(chunks);
}
constexpr std::size_t total_trips(std::size_t trips) { return trips / 10 + trips / 20 * 20; }

// ---- the limits ----------------------------------------------------------------------------------------------------------

// Bare ping-pong of lines that walk over as much memory as two rings.
Result line(Control& control) {
    struct alignas(64) Bare {
        std::atomic<std::uint64_t> word{0};
    };
    constexpr std::size_t kLines = kRing / 64, kTrips = 400'000;
    auto* const there = new (bench::shared(kRing)) Bare[kLines];
    auto* const back = new (bench::shared(kRing)) Bare[kLines];
    double value = 0;
    const bench::Placement placement = bench::pair(
        control,
        [&] {
            std::size_t i = 0;
            value = round_trip(kTrips, [&] {
                there[i % kLines].word.store(i + 1, std::memory_order_release);
                while (back[i % kLines].word.load(std::memory_order_acquire) != i + 1) cpu_relax();
                ++i;
            });
        },
        [&] {
            for (std::size_t i = 0; i < total_trips(kTrips); ++i) {
                while (there[i % kLines].word.load(std::memory_order_acquire) != i + 1) cpu_relax();
                back[i % kLines].word.store(i + 1, std::memory_order_release);
            }
        });
    ::munmap(there, kRing);
    ::munmap(back, kRing);
    return {value, placement};
}

// ---- the ring ------------------------------------------------------------------------------------------------------------

Barrier barrier() { return tachyon::register_membarrier() ? Barrier::membarrier : Barrier::locked; }

void receive(Consumer& consumer, std::uint8_t* to) {
    Frame frame;
    while (consumer.peek(frame) != Status::ok) cpu_relax();
    std::memcpy(to, frame.payload, frame.size);
    consumer.release(frame);
}

Result ring_round_trip(Control& control) {
    constexpr std::size_t kTrips = 400'000;
    const RingSegment there = RingSegment::create(kRing), back = RingSegment::create(kRing);
    double value = 0;
    const bench::Placement placement = bench::pair(
        control,
        [&] {
            Producer producer(there.ring(barrier()));
            Consumer consumer(back.ring(barrier()));
            std::uint8_t payload[32] = {1};
            value = round_trip(kTrips, [&] {
                while (!producer.try_send(payload, sizeof payload, 1)) cpu_relax();
                receive(consumer, payload);
            });
        },
        [&] {
            Producer producer(back.ring(barrier()));
            Consumer consumer(there.ring(barrier()));
            std::uint8_t payload[32];
            for (std::size_t i = 0; i < total_trips(kTrips); ++i) {
                receive(consumer, payload);
                while (!producer.try_send(payload, sizeof payload, 1)) cpu_relax();
            }
        });
    return {value, placement};
}

// Messages per second. The consumer copies each out and checks its number.
template <class Send, class Receive>
Result one_way(Control& control, std::size_t messages, Send make_send, Receive make_receive) {
    std::uint64_t start = 0;
    const bench::Placement placement = bench::pair(
        control,
        [&] {
            auto send = make_send();
            start = now_ns();
            for (std::uint64_t i = 1; i <= messages; ++i) send(i);
        },
        [&] {
            auto take = make_receive();
            for (std::uint64_t i = 1; i <= messages; ++i) {
                if (take() != i) std::exit(3);
            }
            control.end_ns.value = now_ns();
        });
    return {static_cast<double>(messages) * 1e9 / static_cast<double>(control.end_ns.value.load() - start), placement};
}

template <std::size_t kSize>
struct Payload {
    std::uint64_t number;
    char rest[kSize - sizeof(std::uint64_t)];
};

template <std::size_t kSize>
Result ring_one_way(Control& control) {
    const RingSegment segment = RingSegment::create(kRing);
    return one_way(
        control, kSize < 100 ? 10'000'000 : 2'000'000,
        [&] {
            return [producer = Producer(segment.ring(barrier())), payload = Payload<kSize>{}](std::uint64_t i) mutable {
                payload.number = i;
                while (!producer.try_send(&payload, kSize, 1)) cpu_relax();
            };
        },
        [&] {
            return [consumer = Consumer(segment.ring(barrier())), payload = Payload<kSize>{}]() mutable {
                Frame frame;
                while (consumer.peek(frame) != Status::ok) cpu_relax();
                std::memcpy(&payload, frame.payload, kSize);
                consumer.release(frame);
                return payload.number;
            };
        });
}

#ifdef HAVE_BOOST
template <std::size_t kSize>
Result boost_one_way(Control& control) {
    using Queue = boost::lockfree::spsc_queue<Payload<kSize>, boost::lockfree::capacity<kRing / kSize>>;
    auto* const queue = new (bench::shared(sizeof(Queue) + 4096)) Queue;
    const Result result = one_way(
        control, kSize < 100 ? 4'000'000 : 1'000'000,
        [&] {
            return [queue, payload = Payload<kSize>{}](std::uint64_t i) mutable {
                payload.number = i;
                while (!queue->push(payload)) cpu_relax();
            };
        },
        [&] {
            return [queue, payload = Payload<kSize>{}]() mutable {
                while (!queue->pop(payload)) cpu_relax();
                return payload.number;
            };
        });
    ::munmap(queue, sizeof(Queue) + 4096);
    return result;
}
#endif

// ---- the bus, liveness and all -------------------------------------------------------------------------------------------

std::unique_ptr<Bus> open_bus(const std::string& path, bool listening) {
    if (listening) {
        tachyon::ListenOptions options;
        options.capacities = {kRing};
        return Bus::listen(path, options);
    }
    tachyon::ConnectOptions options;
    options.deadline = now_ns() + 10'000 * tachyon::kMillisecond;
    return Bus::connect(path, options);
}

std::string bench_path(const char* name) { return "/tmp/tachyon-bench-" + std::to_string(::getpid()) + name; }

void send_to(Bus& bus, const void* data, std::size_t size) {
    while (bus.try_send(data, size, 1) != Status::ok) {
        (void)bus.wait_writable(size, kNever);
    }
}

template <bool kPark>
void take_from(Bus& bus, void* data) {
    Frame frame;
    Status status;
    while ((status = bus.try_peek(frame)) != Status::ok) {
        if (status != Status::empty) std::exit(4);
        if constexpr (kPark) {
            (void)bus.wait_readable(kNever);
        } else {
            cpu_relax();
        }
    }
    std::memcpy(data, frame.payload, frame.size);
    bus.release(frame);
}

template <bool kPark>
Result bus_round_trip(Control& control) {
    constexpr std::size_t kTrips = kPark ? 20'000 : 400'000;
    const std::string there = bench_path(".there"), back = bench_path(".back");
    double value = 0;
    const bench::Placement placement = bench::pair(
        control,
        [&] {
            const auto out = open_bus(there, true), in = open_bus(back, true);
            std::uint8_t payload[32] = {1};
            value = round_trip(kTrips, [&] {
                send_to(*out, payload, sizeof payload);
                take_from<kPark>(*in, payload);
            });
        },
        [&] {
            const auto in = open_bus(there, false), out = open_bus(back, false);
            std::uint8_t payload[32];
            for (std::size_t i = 0; i < total_trips(kTrips); ++i) {
                take_from<kPark>(*in, payload);
                send_to(*out, payload, sizeof payload);
            }
        });
    return {value, placement};
}

Result rpc_round_trip(Control& control) {
    constexpr std::size_t kTrips = 400'000;
    const std::string path = bench_path(".rpc");
    double value = 0;
    const bench::Placement placement = bench::pair(
        control,
        [&] {
            tachyon::ConnectOptions options;
            options.deadline = now_ns() + 10'000 * tachyon::kMillisecond;
            tachyon::RpcRings rings = tachyon::connect_rpc(path, options);
            tachyon::Caller caller(rings);
            std::uint8_t payload[32] = {1};
            value = round_trip(kTrips, [&] {
                std::uint64_t id = 0;
                while (caller.try_call(payload, sizeof payload, 1, id) != Status::ok) cpu_relax();
                Frame reply;
                Status status;
                while ((status = caller.try_wait(id, reply)) != Status::ok) {
                    if (status != Status::empty) std::exit(6);
                    cpu_relax();
                }
                std::memcpy(payload, reply.payload, reply.size);
                caller.release(reply);
            });
        },
        [&] {
            tachyon::ListenOptions options;
            options.capacities = {kRing, kRing};
            tachyon::RpcRings rings = tachyon::listen_rpc(path, options);
            tachyon::Callee callee(rings);
            std::uint8_t payload[32];
            for (std::size_t i = 0; i < total_trips(kTrips); ++i) {
                Frame call;
                Status status;
                while ((status = callee.try_serve(call)) != Status::ok) {
                    if (status != Status::empty) std::exit(6);
                    cpu_relax();
                }
                std::memcpy(payload, call.payload, sizeof payload);
                rings.calls->release(call);
                while (callee.try_reply(call.correlation_id, payload, sizeof payload, 1) != Status::ok) cpu_relax();
            }
        });
    return {value, placement};
}

Result bus_one_way(Control& control) {
    const std::string path = bench_path(".oneway");
    return one_way(
        control, 10'000'000,
        [&] {
            return [bus = open_bus(path, true), payload = Payload<32>{}](std::uint64_t i) mutable {
                payload.number = i;
                while (bus->try_send(&payload, 32, 1) != Status::ok) cpu_relax();
            };
        },
        [&] {
            return [bus = open_bus(path, false), payload = Payload<32>{}]() mutable {
                take_from<false>(*bus, &payload);
                return payload.number;
            };
        });
}

// Each side sleeps in the kernel for every message.
struct Sleeper {
    explicit Sleeper(const RingSegment& out, const RingSegment& in)
        : producer(out.ring(barrier())), consumer(in.ring(barrier())), parked(in.header()->consumer_parked) {}

    void send(const void* data, std::uint32_t size) {
        while (!producer.try_send(data, size, 1)) cpu_relax();
    }
    void take(void* data) {
        Frame frame;
        while (consumer.peek(frame) != Status::ok) {
            tachyon::park(parked, ability, tachyon::kSlice, [this] { return consumer.has_frame(); });
        }
        std::memcpy(data, frame.payload, frame.size);
        consumer.release(frame);
    }
    Producer producer;
    Consumer consumer;
    std::atomic<std::uint32_t>& parked;
    Barrier ability = barrier();
};

Result parked_round_trip(Control& control) {
    constexpr std::size_t kTrips = 20'000;
    const RingSegment there = RingSegment::create(kRing), back = RingSegment::create(kRing);
    double value = 0;
    const bench::Placement placement = bench::pair(
        control,
        [&] {
            Sleeper side(there, back);
            char payload[32] = {1};
            value = round_trip(kTrips, [&] {
                side.send(payload, sizeof payload);
                side.take(payload);
            });
        },
        [&] {
            Sleeper side(back, there);
            char payload[32];
            for (std::size_t i = 0; i < total_trips(kTrips); ++i) {
                side.take(payload);
                side.send(payload, sizeof payload);
            }
        });
    return {value, placement};
}

Result unix_round_trip(Control& control) {
    constexpr std::size_t kTrips = 20'000;
    int sockets[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) std::abort();
    const auto send = [](int socket, const char* data) {
        if (::send(socket, data, 32, 0) != 32) std::exit(5);
    };
    const auto take = [](int socket, char* data) {
        if (::recv(socket, data, 32, MSG_WAITALL) != 32) std::exit(5);
    };
    double value = 0;
    const bench::Placement placement = bench::pair(
        control,
        [&] {
            char payload[32] = {1};
            value = round_trip(kTrips, [&] {
                send(sockets[0], payload);
                take(sockets[0], payload);
            });
        },
        [&] {
            char payload[32];
            for (std::size_t i = 0; i < total_trips(kTrips); ++i) {
                take(sockets[1], payload);
                send(sockets[1], payload);
            }
        });
    ::close(sockets[0]);
    ::close(sockets[1]);
    return {value, placement};
}

Result probe(Control& control) {
    const bench::Placement placement = bench::pair(control, [] {}, [] {});
    return {control.probe, placement};
}

}  // namespace

int main(int argc, char** argv) {
    const std::map<std::string, std::function<Result(Control&)>> all = {
        {"line", line},
        {"rtt", ring_round_trip},
        {"bus_rtt", bus_round_trip<false>},
        {"rpc_rtt", rpc_round_trip},
        {"bus_blocking_rtt", bus_round_trip<true>},
        {"oneway32", ring_one_way<32>},
        {"oneway1024", ring_one_way<1024>},
        {"bus_oneway32", bus_one_way},
#ifdef HAVE_BOOST
        {"boost32", boost_one_way<32>},
        {"boost1024", boost_one_way<1024>},
#endif
        {"parked", parked_round_trip},
        {"unix", unix_round_trip},
        {"probe", probe},
    };
    const auto found = argc > 1 ? all.find(argv[1]) : all.end();
    if (found == all.end()) {
        std::fprintf(stderr, "usage: %s WHAT [REPETITIONS], WHAT one of:", argv[0]);
        for (const auto& [name, run] : all) std::fprintf(stderr, " %s", name.c_str());
        std::fputc('\n', stderr);
        return 2;
    }
    auto& control = *new (bench::shared(sizeof(Control))) Control;
    const int repetitions = argc > 2 ? std::atoi(argv[2]) : 5;
    for (int i = 0; i < repetitions; ++i) {
        const Result result = found->second(control);
        std::printf("{\"what\": \"%s\", \"value\": %.4g, \"placement\": \"%s\"}\n", argv[1], result.value,
                    bench::name(result.placement));
    }
    return 0;
}
