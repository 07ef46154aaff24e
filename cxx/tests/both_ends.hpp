// Purpose: a ring with both ends in one thread, for tests that look at it after every step.
// Threads: one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"

namespace tachyon::test {

// Sends and takes the messages of message.hpp.
struct Both {
    explicit Both(std::uint64_t capacity, Barrier barrier = Barrier::locked)
        : ring(capacity, barrier), producer(ring.memory()), consumer(ring.memory()) {}

    bool send(std::uint64_t size, std::uint64_t sequence) {
        std::vector<std::uint8_t> bytes(size + 8);
        write_message(bytes.data(), size, size, sequence);
        return producer.try_send(bytes.data(), static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(sequence),
                                 sequence);
    }
    // Takes one message and says what was wrong with it.
    std::string take(std::uint64_t size, std::uint64_t sequence) {
        Frame frame;
        const Status status = consumer.peek(frame);
        if (status == Status::empty) return "empty";
        if (status != Status::ok) return "corrupt";
        const char* const wrong = check_message(frame, sequence);
        const bool size_differs = frame.size != size;
        consumer.release(frame);
        return wrong != nullptr ? wrong : size_differs ? "size" : "ok";
    }
    Status peek() { return consumer.peek(last); }
    // Moves both positions to `offset` with one-line messages.
    void advance_to(std::uint64_t offset) {
        while ((producer.write_position() & (ring.capacity() - 1)) != offset) {
            REQUIRE(send(0, 7));
            REQUIRE(take(0, 7) == "ok");
        }
        REQUIRE(peek() == Status::empty);
    }
    std::uint64_t published() const { return ring.header().read_position.load(); }

    FencedRing ring;
    Producer producer;
    Consumer consumer;
    Frame last{};
};

}  // namespace tachyon::test
