// Purpose: a ring with both ends in one thread, for tests that look at every step. Threads: one.
#pragma once

#include <string>
#include <vector>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"
#include "tachyon/ring/ring.hpp"

namespace tachyon::test {

// A ring with both ends in one thread.
struct Both {
    explicit Both(std::uint64_t capacity, Barrier barrier = Barrier::locked, std::uint64_t bulk = kBulk)
        : ring(capacity, barrier, bulk), producer(ring.memory()), consumer(ring.memory()) {}

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
    // Lines that the producer takes for clean and are not, of those that are free.
    std::uint64_t unknown_dirt() const {
        const std::uint64_t from = producer.dirty_from(), to = producer.dirty_to();
        std::uint64_t count = 0;
        for (std::uint64_t at = producer.write_position(); at < consumer.freed_position() + ring.capacity();
             at += kLine)
            count += (at < from || at >= to) && ring.word(at).load() != 0;
        return count;
    }
    std::uint64_t published() const { return ring.header().read_position.load(); }

    FencedRing ring;
    Producer producer;
    Consumer consumer;
    Frame last{};
};

}  // namespace tachyon::test
