// A peer that lies in the memory of the ring.
#include <cstring>
#include <deque>

#include "both_ends.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

void put_word(const FencedRing& ring, std::uint64_t offset, std::uint64_t word) { ring.word(offset).store(word); }

}  // namespace

TEST_CASE("a frame that reaches beyond the end of the ring is corrupt") {
    for (const std::uint64_t offset : {0u, 64u, 448u}) {
        Both both(512);
        both.advance_to(offset);
        for (const std::uint64_t size : {512 - offset - kFrameHeader + 1, std::uint64_t{512}, std::uint64_t{0x7fffffff},
                                         std::uint64_t{0xfffffffc}}) {
            put_word(both.ring, offset, commit_word(static_cast<std::uint32_t>(size), 1));
            CHECK(both.peek() == Status::corrupt);
            CHECK(both.consumer.held() == 0);
        }
        put_word(both.ring, offset, commit_word(static_cast<std::uint32_t>(512 - offset - kFrameHeader), 1));
        CHECK(both.peek() == Status::ok);  // one byte less is the largest that can lie there
    }
}

TEST_CASE("an announcement is told, but not taken before it is accepted") {
    Both both(512);
    for (std::uint64_t lap = 0; lap < 20; ++lap) {
        REQUIRE(both.producer.try_claim(8) != nullptr);
        both.producer.announce(1 << 20, 7, 9);
        for (int i = 0; i < 2; ++i) CHECK(both.peek() == Status::too_large);
        CHECK(both.consumer.held() == 0);
        CHECK(both.last.type_id == 7);
        CHECK(both.last.correlation_id == 9);
        std::uint64_t bytes = 0;
        std::memcpy(&bytes, both.last.payload, sizeof bytes);
        CHECK(bytes == 1 << 20);
        both.consumer.accept();
        CHECK(both.consumer.held() == 1);
        both.consumer.release(both.last);
        CHECK(both.peek() == Status::empty);
    }
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("a commit word with a type and no size is corrupt") {
    Both both(512);
    put_word(both.ring, 0, std::uint64_t{1} << 32);
    CHECK(both.peek() == Status::corrupt);
    Both whole(64);
    put_word(whole.ring, 0, std::uint64_t{0xffffffff} << 32);
    CHECK(whole.peek() == Status::corrupt);
}

TEST_CASE("a frame that reaches over frames still held is corrupt") {
    Both both(512);
    both.advance_to(256);
    REQUIRE(both.send(200, 1));  // 256 … 512
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    put_word(both.ring, 0, commit_word(256 - 16 + 1, 2));  // 0 … 320
    CHECK(both.peek() == Status::corrupt);
    put_word(both.ring, 0, commit_word(256 - 16, 2));  // 0 … 256: all the room there is
    CHECK(both.peek() == Status::ok);
    CHECK(both.peek() == Status::empty);
    CHECK(check_message(first, 1) == nullptr);
}

TEST_CASE("padding at the beginning of the ring is corrupt") {
    Both both(512);
    put_word(both.ring, 0, kPadding);
    CHECK(both.peek() == Status::corrupt);
}

TEST_CASE("padding with a type is corrupt") {
    Both both(512);
    both.advance_to(64);
    put_word(both.ring, 64, std::uint64_t{1} << 32 | kPadding);
    CHECK(both.peek() == Status::corrupt);
}

TEST_CASE("padding that reaches over frames still held is corrupt") {
    Both both(256);
    both.advance_to(192);
    REQUIRE(both.send(0, 1));  // 192 … 256
    REQUIRE(both.send(0, 2));  // 0 … 64
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    REQUIRE(both.peek() == Status::ok);
    put_word(both.ring, 64, kPadding);
    CHECK(both.peek() == Status::corrupt);
    CHECK(check_message(first, 1) == nullptr);
}

TEST_CASE("a read_position that the consumer cannot have reached is corrupt, and nothing is written after it") {
    for (const std::uint64_t bad :
         {std::uint64_t{512 + 64 + 1}, std::uint64_t{1} << 40, ~std::uint64_t{0}, std::uint64_t{63}}) {
        Both both(512);
        both.advance_to(64);
        REQUIRE(both.producer.try_claim(480) == nullptr);  // learns of read_position 64, and pads
        REQUIRE(both.producer.cached_read_position() == 64);
        REQUIRE(both.peek() == Status::empty);
        both.ring.header().read_position.store(bad);
        CHECK(both.producer.try_claim(496) == nullptr);
        CHECK(both.producer.corrupt());
        CHECK(both.producer.can_advance(0));  // it ends every wait
        CHECK(both.producer.write_position() == 512);
        CHECK(both.ring.dirty_lines() == 0);
    }
}

TEST_CASE("a read_position between the last one seen and the write position is believed") {
    Both both(512);
    for (std::uint64_t i = 0; i < 8; ++i) REQUIRE(both.send(0, i));
    both.ring.header().read_position.store(512);
    CHECK(both.producer.try_claim(496) != nullptr);
    CHECK_FALSE(both.producer.corrupt());
}

TEST_CASE("whatever stands in the ring, a consumer never leaves it") {
    Random random(11);
    const std::uint64_t until = in_ms(long_form() ? 60'000 : 1500);
    std::uint64_t corrupt = 0, frames = 0;
    while (now_ns() < until) {
        const std::uint64_t capacity = std::uint64_t{64} << random.below(8);
        FencedRing ring(capacity);
        Consumer consumer(ring.memory());
        std::deque<Frame> held;
        for (int step = 0; step < 200; ++step) {
            for (std::uint64_t lines = random.below(4); lines > 0; --lines) {
                std::uint64_t word = 0;
                switch (random.below(5)) {
                    case 0: word = random.next(); break;
                    case 1: word = kPadding; break;
                    case 2: word = commit_word(static_cast<std::uint32_t>(capacity - 16 + random.below(3)), 1); break;
                    default: word = commit_word(static_cast<std::uint32_t>(random.below(capacity)), 1); break;
                }
                put_word(ring, random.below(capacity / 64) * 64, word);
            }
            Frame frame;
            const Status status = consumer.peek(frame);
            if (status == Status::corrupt) {
                ++corrupt;
                break;
            }
            if (status == Status::ok) {
                ++frames;
                REQUIRE(frame.payload >= ring.data() + kFrameHeader);
                REQUIRE(frame.payload + frame.size <= ring.data() + capacity);
                for (const Frame& other : held) {
                    REQUIRE(
                        (frame.payload + frame.size <= other.payload || other.payload + other.size <= frame.payload));
                }
                volatile std::uint8_t sink = 0;
                for (std::uint32_t i = 0; i < frame.size; i += 16)
                    sink = static_cast<std::uint8_t>(sink + frame.payload[i]);
                held.push_back(frame);
            }
            while (!held.empty() && random.one_in(2)) {
                consumer.release(held.front());
                held.pop_front();
            }
            if (!held.empty() && random.one_in(5)) {
                consumer.put_back(held.back());
                held.pop_back();
            }
        }
        REQUIRE(ring.fence_intact());
    }
    CHECK(corrupt > 100);
    CHECK(frames > 100);
}

TEST_CASE("whatever read_position says, a producer never leaves the ring") {
    Random random(12);
    const std::uint64_t until = in_ms(long_form() ? 60'000 : 1000);
    std::uint64_t corrupt = 0;
    while (now_ns() < until) {
        const std::uint64_t capacity = std::uint64_t{64} << random.below(8);
        FencedRing ring(capacity);
        Producer producer(ring.memory());
        for (int step = 0; step < 100; ++step) {
            const std::uint64_t written = producer.write_position();
            ring.header().read_position.store(
                random.one_in(8) ? random.next() : written - random.below(capacity + 1) + random.below(70));
            const std::uint64_t size = pick_size(random, max_message_size(capacity));
            if (std::uint8_t* const payload = producer.try_claim(size); payload != nullptr) {
                REQUIRE(payload >= ring.data() + kFrameHeader);
                REQUIRE(payload + size <= ring.data() + capacity);
                std::memset(payload, 0xff, size);
                if (random.one_in(4)) {
                    producer.abort();
                } else {
                    producer.commit(static_cast<std::uint32_t>(random.below(size + 1)), 1, 1);
                }
            }
            if (producer.corrupt()) {
                ++corrupt;
                break;
            }
        }
        REQUIRE(ring.fence_intact());
    }
    CHECK(corrupt > 100);
}
