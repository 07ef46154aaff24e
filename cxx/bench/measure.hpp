// Purpose: one way and there and back through any channel, with the same loops for all of them.
//
// A channel is a class with
//   static constexpr const char* kName;
//   explicit Channel(const Shape&)             before the fork: what both sides share
//   void open_sender(), open_receiver()        after it, on its side
//   void send(const void*), void receive(void*)  shape.size bytes; they spin or sleep as the channel is used
//   void flush()                               lets go of what a batch holds back
// The first 8 bytes of each message are its number, and marks; the receiver checks that none is lost or out of order.
#pragma once

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness.hpp"

namespace bench {

struct Shape {
    std::size_t size;      // of a message, 8 bytes at least
    std::size_t capacity;  // of the memory between the two
};

struct Sample {
    double value = 0;  // messages per second, or nanoseconds of a round trip
    Placement placement = Placement::changed;
    std::vector<std::pair<double, double>>
        quantiles{};  // share, nanoseconds. NOLINT(readability-redundant-member-init): -Wextra asks for it
};

inline constexpr std::uint64_t kStart = std::uint64_t{1} << 62, kEnd = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kNumber = kStart - 1;

// Copies whose target nobody reads are deleted by some compilers.
inline void keep(const void* memory) { asm volatile("" ::"r"(memory) : "memory"); }

// Private memory of one side, written once, so that no page is the zero page.
class Buffer {
  public:
    explicit Buffer(std::size_t size) : bytes_(size, 0x5a) {}
    std::uint8_t* get() { return bytes_.data(); }
    void put(std::uint64_t word) { std::memcpy(bytes_.data(), &word, sizeof word); }
    [[nodiscard]] std::uint64_t word() const {
        std::uint64_t word;
        std::memcpy(&word, bytes_.data(), sizeof word);
        return word;
    }

  private:
    std::vector<std::uint8_t> bytes_;
};

// Messages per second, over `budget` ns and what is still in the ring then. A lap of the memory goes before, untimed.
template <class Channel>
Sample one_way(Control& control, const Shape& shape, std::uint64_t budget) {
    Channel channel(shape);
    const Placement placement = pair(
        control,
        [&] {
            channel.open_sender();
            Buffer message(shape.size);
            std::uint64_t number = 0;
            const auto send = [&](std::uint64_t mark) {
                message.put(++number | mark);
                channel.send(message.get());
            };
            const std::uint64_t between_looks = shape.size < 16'384 ? 256 : 1;
            const std::uint64_t lap = shape.capacity / shape.size + 1;
            for (const std::uint64_t until = now_ns() + budget; number < lap && now_ns() < until;) {
                for (std::uint64_t i = 0; i < between_looks; ++i) send(0);
            }
            send(kStart);
            for (const std::uint64_t until = now_ns() + budget; now_ns() < until;) {
                for (std::uint64_t i = 0; i < between_looks; ++i) send(0);
            }
            send(kEnd);
            channel.flush();
        },
        [&] {
            channel.open_receiver();
            Buffer message(shape.size);
            std::uint64_t number = 0;
            const auto run_until = [&](std::uint64_t mark) {
                std::uint64_t word;
                do {
                    channel.receive(message.get());
                    keep(message.get());
                    word = message.word();
                    if ((word & kNumber) != ++number) std::exit(3);
                } while ((word & mark) == 0);
                return number;
            };
            const std::uint64_t first = run_until(kStart), start = now_ns();
            control.messages.value = run_until(kEnd) - first;
            control.elapsed_ns.value = now_ns() - start;
        });
    return {
        static_cast<double>(control.messages.value.load()) * 1e9 / static_cast<double>(control.elapsed_ns.value.load()),
        placement};
}

// Shares of a distribution, close together at its far end.
inline std::vector<std::pair<double, double>> quantiles_of(std::vector<std::uint64_t> ticks, double ns_per_tick) {
    constexpr std::array kShares = {0.0,  0.01,  0.05,  0.1,   0.25,   0.5,    0.75,   0.9,     0.95,    0.98,
                                    0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 0.99999, 1.0};
    std::ranges::sort(ticks);
    std::vector<std::pair<double, double>> quantiles;
    for (const double share : kShares) {
        const auto rank = static_cast<std::size_t>(share * static_cast<double>(ticks.size()));
        quantiles.emplace_back(share, static_cast<double>(ticks[std::min(rank, ticks.size() - 1)]) * ns_per_tick);
    }
    return quantiles;
}

// Calls trip() for `budget` ns in 20 chunks; the median of their means: a short change of placement does not show.
template <class Trip>
double median_trip(std::uint64_t budget, Trip trip) {
    for (const std::uint64_t until = now_ns() + budget / 8; now_ns() < until;) trip();
    std::vector<double> chunks;
    for (int chunk = 0; chunk < 20; ++chunk) {
        const std::uint64_t start = now_ns(), until = start + budget / 20;
        std::uint64_t trips = 0, now = start;
        do {
            for (int i = 0; i < 64; ++i) trip();
            trips += 64;
        } while ((now = now_ns()) < until);
        chunks.push_back(static_cast<double>(now - start) / static_cast<double>(trips));
    }
    return median(chunks);
}

// One sample for each call, for `budget` ns.
template <class Trip>
std::vector<std::pair<double, double>> trip_quantiles(std::uint64_t budget, Trip trip) {
    std::vector<std::uint64_t> samples;
    samples.reserve(2'000'000);
    const std::uint64_t start_ns = now_ns(), start = tachyon::ticks();
    std::uint64_t before = start;
    while (samples.size() < samples.capacity()) {
        trip();
        const std::uint64_t after = tachyon::ticks();
        samples.push_back(after - before);
        before = after;
        if (samples.size() % 64 == 0 && now_ns() - start_ns > budget) break;
    }
    const double ns_per_tick = static_cast<double>(now_ns() - start_ns) / static_cast<double>(before - start);
    return quantiles_of(std::move(samples), ns_per_tick);
}

// Nanoseconds there and back through two channels.
template <class Channel>
Sample round_trip(Control& control, const Shape& shape, std::uint64_t budget) {
    Channel there(shape), back(shape);
    Sample sample;
    sample.placement = pair(
        control,
        [&] {
            there.open_sender();
            back.open_receiver();
            Buffer message(shape.size);
            std::uint64_t number = 0;
            const auto trip = [&](std::uint64_t mark = 0) {
                message.put(++number | mark);
                there.send(message.get());
                there.flush();
                back.receive(message.get());
                keep(message.get());
                if ((message.word() & kNumber) != number) std::exit(3);
            };
            sample.value = median_trip(budget, trip);
            sample.quantiles = trip_quantiles(budget, trip);
            trip(kEnd);
        },
        [&] {
            there.open_receiver();
            back.open_sender();
            Buffer message(shape.size);
            do {
                there.receive(message.get());
                keep(message.get());
                back.send(message.get());
                back.flush();
            } while ((message.word() & kEnd) == 0);
        });
    return sample;
}

}  // namespace bench
