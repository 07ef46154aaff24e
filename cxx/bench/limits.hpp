// Purpose: what no queue can beat, and the ring at its slowest: bare lines going to and fro, and a consumer that always sleeps.
#pragma once

#include <cstring>

#include "channels.hpp"
#include "measure.hpp"

namespace bench {

// Bare cache lines that walk over the memory, one for each message, which is its number alone. Nothing keeps the sender from
// overtaking the receiver, so it is good for round trips only.
class RotatingLines {
  public:
    static constexpr const char* kName = "lines";
    explicit RotatingLines(const Shape& shape) : count_(shape.capacity / kLine), memory_(shape.capacity) {}
    void open_sender() { memory_.touch(); }
    void open_receiver() { memory_.touch(); }
    void send(const void* data) {
        std::uint64_t word;
        std::memcpy(&word, data, sizeof word);
        next().store(word, std::memory_order_release);
    }
    void flush() {}
    void receive(void* to) {
        const std::atomic<std::uint64_t>& line = next();
        std::uint64_t word;
        while (((word = line.load(std::memory_order_acquire)) & kNumber) != at_) cpu_relax();
        std::memcpy(to, &word, sizeof word);
    }

  private:
    static constexpr std::size_t kLine = 64;
    std::atomic<std::uint64_t>& next() {
        auto* const line = static_cast<std::uint8_t*>(memory_.get()) + (at_++ & (count_ - 1)) * kLine;
        return *reinterpret_cast<std::atomic<std::uint64_t>*>(line);
    }
    std::size_t count_;
    Shared memory_;
    std::uint64_t at_ = 0;
};

// The ring with a consumer that sleeps in the kernel for every message, without a spin before it.
class ParkedRing {
  public:
    static constexpr const char* kName = "parked";
    explicit ParkedRing(const Shape& shape) : shape_(shape), segment_(tachyon::RingSegment::create(shape.capacity)) {}
    void open_sender() { producer_ = tachyon::Producer(segment_.ring(barrier())); }
    void open_receiver() { consumer_ = tachyon::Consumer(segment_.ring(barrier())); }
    void send(const void* data) {
        while (!producer_.try_send(data, static_cast<std::uint32_t>(shape_.size), 1)) cpu_relax();
    }
    void flush() {}
    void receive(void* to) {
        Frame frame;
        while (consumer_.peek(frame) != Status::ok) {
            tachyon::park(segment_.header()->consumer_parked, ability_, tachyon::kSlice,
                          [this] { return consumer_.has_frame(); });
        }
        std::memcpy(to, frame.payload, frame.size);
        consumer_.release(frame);
    }

  private:
    Shape shape_;
    tachyon::RingSegment segment_;
    tachyon::Producer producer_;
    tachyon::Consumer consumer_;
    tachyon::Barrier ability_ = barrier();
};

}  // namespace bench
