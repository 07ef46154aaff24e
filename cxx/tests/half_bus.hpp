// Purpose: one message over a bus, and a bus whose other end the test plays by hand.
// Threads: as Bus.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include <memory>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"
#include "tachyon/bus.hpp"

namespace tachyon::test {

inline constexpr Barrier kBarriers[] = {Barrier::locked, Barrier::membarrier};

inline Status send_one(Bus& bus, std::uint64_t sequence, std::uint64_t size = 40) {
    std::vector<std::uint8_t> bytes(size + 8);
    write_message(bytes.data(), size, size, sequence);
    return bus.try_send(bytes.data(), size, static_cast<std::uint32_t>(sequence), sequence);
}

// Peeks, checks and releases one message.
inline Status take_one(Bus& bus, std::uint64_t sequence) {
    Frame frame{};
    const Status status = bus.try_peek(frame);
    if (status != Status::ok) return status;
    const char* const wrong = check_message(frame, sequence);
    INFO((wrong != nullptr ? wrong : "message is right"));
    REQUIRE(wrong == nullptr);
    return bus.release(frame);
}

// A peek that is sure to ask the kernel about the peer: that happens only every 0.1 ms.
inline Status settled_peek(Bus& bus, Frame& frame) {
    Status status = bus.try_peek(frame);
    const std::uint64_t until = in_ms(20'000);
    while (status == Status::empty && now_ns() < until) {
        sleep_us(500);
        status = bus.try_peek(frame);
    }
    return status;
}

// One end of a bus whose other end the test plays by hand: the memory, and a socket whose end is a death.
struct HalfBus {
    explicit HalfBus(std::uint64_t capacity = 4096, Side side = Side::listener, std::uint64_t max_large = 0) {
        int sockets[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0);
        Descriptor near(sockets[0]);
        socket = Descriptor(sockets[1]);
        RingSegment ours = RingSegment::create(capacity);
        memory = RingSegment::attach(Descriptor(::fcntl(ours.descriptor(), F_DUPFD_CLOEXEC, 0)), capacity);
        ours.close_descriptor();
        memory.close_descriptor();
        header = memory.header();
        data = memory.ring(Barrier::locked).data;
        Connection connection(std::move(near), side);
        connection.set_max_large(max_large);
        bus = std::make_unique<Bus>(std::move(connection), std::move(ours));
    }
    void die() { socket.reset(); }

    Descriptor socket;
    RingSegment memory;
    SegmentHeader* header = nullptr;
    std::uint8_t* data = nullptr;
    std::unique_ptr<Bus> bus;
};

inline void set_role(const HalfBus& half, std::uint32_t value) { half.header->producer_side.store(value); }

inline constexpr auto kListener = static_cast<std::uint32_t>(Side::listener);
inline constexpr auto kConnector = static_cast<std::uint32_t>(Side::connector);

}  // namespace tachyon::test
