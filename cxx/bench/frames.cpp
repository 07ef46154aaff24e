// Calls, large frames in place, and what letting go of one costs.
#include <semaphore.h>

#include <numeric>

#include "channels.hpp"
#include "programs.hpp"
#include "tachyon/rpc.hpp"

namespace bench {
namespace {

constexpr std::size_t kFrame = std::size_t{1920} * 1080 * 3;  // 6.2 MB
constexpr std::size_t kFrames = 5, kRing = 32 << 20;

// Reads all of it, as fast as vectors do.
std::uint64_t sum(const std::uint8_t* data, std::size_t size) {
    std::uint64_t lanes[8] = {};
    for (std::size_t i = 0; i + sizeof lanes <= size; i += sizeof lanes) {
        std::uint64_t words[8];
        std::memcpy(words, data + i, sizeof words);
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += words[lane];
    }
    return std::accumulate(std::begin(lanes), std::end(lanes), std::uint64_t{0});
}

// What a camera pipeline by hand would have: slots, and two semaphores that count them.
class Slots {
  public:
    Slots() : memory_(4096 + kFrames * kFrame) {
        ::sem_init(&semaphores()[0], 1, kFrames);
        ::sem_init(&semaphores()[1], 1, 0);
    }
    void open() { memory_.touch(); }
    std::uint8_t* claim() { return take(0); }
    void commit() { give(1); }
    const std::uint8_t* peek() { return take(1); }
    void release() { give(0); }

  private:
    [[nodiscard]] sem_t* semaphores() const { return static_cast<sem_t*>(memory_.get()); }
    std::uint8_t* take(int which) {
        while (::sem_wait(&semaphores()[which]) != 0) {}
        return static_cast<std::uint8_t*>(memory_.get()) + 4096 + at_ * kFrame;
    }
    void give(int which) {
        at_ = (at_ + 1) % kFrames;
        ::sem_post(&semaphores()[which]);
    }
    Shared memory_;
    std::size_t at_ = 0;
};

// The same over a Bus.
class CameraBus {
  public:
    void listen() { bus_ = listen_at(path_, kRing); }
    void connect() { bus_ = connect_to(path_); }
    std::uint8_t* claim() {
        std::uint8_t* payload = nullptr;
        Status status;
        while ((status = bus_->try_claim(kFrame, payload)) != Status::ok) {
            wait_for_room(*bus_, Wait::block, status, kFrame);
        }
        return payload;
    }
    void commit() {
        if (bus_->commit(kFrame, 1) != Status::ok) std::exit(4);
    }
    const std::uint8_t* peek() {
        Status status;
        while ((status = bus_->try_peek(frame_)) != Status::ok) wait_for_message(*bus_, Wait::block, status);
        return frame_.payload;
    }
    void release() { bus_->release(frame_); }

  private:
    std::string path_ = new_path();
    std::unique_ptr<Bus> bus_;
    Frame frame_{};
};

// Frames per second. The first ones warm up.
template <class Pipeline, class OpenHere, class OpenThere>
Sample stream_frames(Control& control, std::size_t frames, OpenHere open_here, OpenThere open_there) {
    constexpr std::size_t kWarmUp = 10;
    Pipeline pipeline;
    const Placement placement = pair(
        control,
        [&] {
            open_here(pipeline);
            Buffer picture(kFrame);
            for (std::size_t i = 1; i <= frames + kWarmUp; ++i) {
                picture.put(i);
                std::memcpy(pipeline.claim(), picture.get(), kFrame);
                pipeline.commit();
            }
        },
        [&] {
            open_there(pipeline);
            Buffer picture(kFrame);
            picture.put(0);
            const std::uint64_t rest = sum(picture.get(), kFrame);
            std::uint64_t start = 0;
            for (std::size_t i = 1; i <= frames + kWarmUp; ++i) {
                if (sum(pipeline.peek(), kFrame) != rest + i) std::exit(3);
                pipeline.release();
                if (i == kWarmUp) start = now_ns();
            }
            control.elapsed_ns.value = now_ns() - start;
        });
    return {static_cast<double>(frames) * 1e9 / static_cast<double>(control.elapsed_ns.value.load()), placement};
}

Sample rpc_round_trip(Control& control, const Shape& shape, std::uint64_t budget) {
    const std::string path = new_path();
    Sample sample;
    sample.placement = pair(
        control,
        [&] {
            tachyon::ConnectOptions options;
            options.deadline = now_ns() + 10'000 * tachyon::kMillisecond;
            tachyon::RpcRings rings = tachyon::connect_rpc(path, options);
            tachyon::Caller caller(rings);
            Buffer message(shape.size);
            const auto trip = [&](std::uint64_t mark = 0) {
                message.put(mark);
                std::uint64_t id = 0;
                while (caller.try_call(message.get(), shape.size, 1, id) != Status::ok) cpu_relax();
                Frame reply;
                Status status;
                while ((status = caller.try_wait(id, reply)) != Status::ok)
                    wait_for_message(*rings.replies, Wait::spin, status);
                std::memcpy(message.get(), reply.payload, reply.size);
                caller.release(reply);
            };
            sample.value = median_trip(budget, trip);
            sample.quantiles = trip_quantiles(budget, trip);
            trip(kEnd);
        },
        [&] {
            tachyon::ListenOptions options;
            options.capacities = {shape.capacity, shape.capacity};
            tachyon::RpcRings rings = tachyon::listen_rpc(path, options);
            tachyon::Callee callee(rings);
            Buffer message(shape.size);
            do {
                Frame call;
                Status status;
                while ((status = callee.try_serve(call)) != Status::ok)
                    wait_for_message(*rings.calls, Wait::spin, status);
                std::memcpy(message.get(), call.payload, shape.size);
                rings.calls->release(call);
                while (callee.try_reply(call.correlation_id, message.get(), shape.size, 1) != Status::ok) cpu_relax();
            } while ((message.word() & kEnd) == 0);
        });
    return sample;
}

// Nanoseconds that Bus::release of one untouched frame takes.
Sample release_untouched(Control& control, std::size_t size) {
    const std::string path = new_path();
    constexpr std::size_t kCount = 200;
    Sample sample;
    sample.placement = pair(
        control,
        [&] {
            const auto bus = connect_to(path);
            std::vector<double> times;
            for (std::size_t i = 0; i < kCount; ++i) {
                Frame frame;
                Status status;
                while ((status = bus->try_peek(frame)) != Status::ok) wait_for_message(*bus, Wait::spin, status);
                const std::uint64_t start = now_ns();
                bus->release(frame);
                times.push_back(static_cast<double>(now_ns() - start));
            }
            sample.value = median(times);
        },
        [&] {
            const auto bus = listen_at(path, kRing);
            for (std::size_t i = 0; i < kCount; ++i) {
                std::uint8_t* payload = nullptr;
                Status status;
                while ((status = bus->try_claim(size, payload)) != Status::ok)
                    wait_for_room(*bus, Wait::spin, status, size);
                if (bus->commit(static_cast<std::uint32_t>(size), 1) != Status::ok) std::exit(4);
            }
        });
    return sample;
}

}  // namespace

// rpc [REPETITIONS [MILLISECONDS]]
int run_rpc(Control& control, const Arguments& arguments) {
    const Shape shape{32, 1 << 20};
    for (std::size_t i = 0; i < number(arguments, 1, 5); ++i) {
        print("round_trip:rpc", shape,
              rpc_round_trip(control, shape, number(arguments, 2, 30) * tachyon::kMillisecond));
    }
    return 0;
}

// camera [REPETITIONS [FRAMES]]
int run_camera(Control& control, const Arguments& arguments) {
    const std::size_t frames = number(arguments, 2, 100);
    for (std::size_t i = 0; i < number(arguments, 1, 5); ++i) {
        print("camera:bus", {kFrame, kRing},
              stream_frames<CameraBus>(
                  control, frames, [](CameraBus& bus) { bus.listen(); }, [](CameraBus& bus) { bus.connect(); }));
        print("camera:by-hand", {kFrame, kFrames * kFrame},
              stream_frames<Slots>(
                  control, frames, [](Slots& slots) { slots.open(); }, [](Slots& slots) { slots.open(); }));
    }
    return 0;
}

// release [REPETITIONS]
int run_release(Control& control, const Arguments& arguments) {
    for (std::size_t i = 0; i < number(arguments, 1, 5); ++i) {
        for (const std::size_t size : {std::size_t{6'000}, std::size_t{6'000'000}}) {
            print("release", {size, kRing}, release_untouched(control, size));
        }
    }
    return 0;
}

}  // namespace bench
