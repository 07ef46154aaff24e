// Purpose: what is measured: the bare ring, and Bus as its users use it.
#pragma once

#include <cstring>
#include <memory>
#include <string>

#include "measure.hpp"
#include "tachyon/bus.hpp"
#include "tachyon/ring/ring_segment.hpp"

namespace bench {

using tachyon::Bus;
using tachyon::Frame;
using tachyon::Status;

inline tachyon::Barrier barrier() {
    return tachyon::register_membarrier() ? tachyon::Barrier::membarrier : tachyon::Barrier::locked;
}

// Producer and Consumer over one segment; each message visible at once, both sides spinning.
class Ring {
  public:
    static constexpr const char* kName = "ring";
    explicit Ring(const Shape& shape) : size_(shape.size), segment_(tachyon::RingSegment::create(shape.capacity)) {}
    void open_sender() { producer_ = tachyon::Producer(memory()); }
    void open_receiver() { consumer_ = tachyon::Consumer(memory()); }
    void send(const void* data) {
        while (!producer_.try_send(data, static_cast<std::uint32_t>(size_), 1)) cpu_relax();
    }
    void flush() {}
    void receive(void* to) {
        Frame frame;
        while (consumer_.peek(frame) != Status::ok) cpu_relax();
        std::memcpy(to, frame.payload, frame.size);
        consumer_.release(frame);
    }

  private:
    [[nodiscard]] tachyon::RingMemory memory() const {
        const tachyon::RingMemory memory = segment_.ring(barrier());
        touch(memory.data, memory.capacity);
        return memory;
    }
    std::size_t size_;
    tachyon::RingSegment segment_;
    tachyon::Producer producer_;
    tachyon::Consumer consumer_;
};

inline std::unique_ptr<Bus> listen_at(const std::string& path, std::uint64_t capacity) {
    tachyon::ListenOptions options;
    options.capacities = {capacity};
    return Bus::listen(path, options);
}
inline std::unique_ptr<Bus> connect_to(const std::string& path) {
    tachyon::ConnectOptions options;
    options.deadline = now_ns() + 10'000 * tachyon::kMillisecond;
    return Bus::connect(path, options);
}
inline std::string new_path() {
    static int count = 0;
    return "/tmp/tachyon-bench-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

enum class Wait : bool { spin, block };

inline void wait_for_room(Bus& bus, Wait wait, Status status, std::size_t size) {
    if (status != Status::full) std::exit(4);
    if (wait == Wait::block) {
        (void)bus.wait_writable(size, tachyon::kNever);
    } else {
        cpu_relax();
    }
}
inline void wait_for_message(Bus& bus, Wait wait, Status status) {
    if (status != Status::empty) std::exit(4);
    if (wait == Wait::block) {
        (void)bus.wait_readable(tachyon::kNever);
    } else {
        cpu_relax();
    }
}

// A whole Bus, checks of the peer included. Spinning: try_ calls in a loop. Blocking: the calls that wait.
template <Wait kWait>
class WholeBus {
  public:
    static constexpr const char* kName = kWait == Wait::spin ? "bus" : "bus-blocking";
    explicit WholeBus(const Shape& shape) : shape_(shape), path_(new_path()) {}
    void open_sender() { bus_ = listen_at(path_, shape_.capacity); }
    void open_receiver() { bus_ = connect_to(path_); }
    void send(const void* data) {
        Status status;
        while ((status = bus_->try_send(data, shape_.size, 1)) != Status::ok) {
            wait_for_room(*bus_, kWait, status, shape_.size);
        }
    }
    void flush() {}
    void receive(void* to) {
        Frame frame;
        Status status;
        while ((status = bus_->try_peek(frame)) != Status::ok) wait_for_message(*bus_, kWait, status);
        std::memcpy(to, frame.payload, frame.size);
        bus_->release(frame);
    }

  private:
    Shape shape_;
    std::string path_;
    std::unique_ptr<Bus> bus_;
};

}  // namespace bench
