#include "tachyon/ring/ring.hpp"

#include <cstring>
#include <vector>

#include "both_ends.hpp"

using namespace tachyon;
using namespace tachyon::test;

// ---- empty, full, the end ------------------------------------------------------------------------------------------------

TEST_CASE("an empty ring has nothing to peek") {
    Both both(64);
    CHECK(both.peek() == Status::empty);
    CHECK_FALSE(both.consumer.has_frame());
    CHECK(both.consumer.held() == 0);
}

TEST_CASE("a message of every size arrives as it was sent, and no byte of it goes elsewhere") {
    Both both(1024);
    for (std::uint64_t size = 0; size <= max_message_size(1024); ++size) {
        const std::uint64_t start = both.producer.write_position() & 1023;
        const bool crosses = start + frame_size(size) > 1024;
        for (int tries = 0; !both.send(size, size + 1); ++tries) {
            REQUIRE(tries < 3);
            REQUIRE(both.peek() == Status::empty);
        }
        if (size <= kOneLinePayload && !crosses) {  // the rest of the line is nobody's, and untouched since it was zero
            const std::uint8_t* const line = both.ring.data() + start;
            for (std::uint64_t i = kFrameHeader + size; size > 0 && i < kLine && both.producer.write_position() <= 1024;
                 ++i) {
                REQUIRE(line[i] == 0);
            }
        }
        REQUIRE(both.take(size, size + 1) == "ok");
        REQUIRE(both.peek() == Status::empty);
        REQUIRE(both.ring.dirty_lines() == 0);
    }
    CHECK(both.ring.fence_intact());
}

TEST_CASE("type_id and correlation_id may have any value") {
    Both both(256);
    for (const std::uint32_t type_id : {0u, 1u, 0xffffffffu}) {
        for (const std::uint64_t correlation_id : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
            REQUIRE(both.producer.try_send("x", 1, type_id, correlation_id));
            REQUIRE(both.peek() == Status::ok);
            CHECK(both.last.type_id == type_id);
            CHECK(both.last.correlation_id == correlation_id);
            CHECK(both.last.size == 1);
            CHECK(both.last.payload[0] == 'x');
            both.consumer.release(both.last);
        }
    }
}

TEST_CASE("a full ring takes nothing, not even an empty message, until something is handed back") {
    for (const std::uint64_t capacity : {64u, 128u, 512u, 4096u}) {
        Both both(capacity);
        const std::uint64_t lines = capacity / kLine;
        for (std::uint64_t i = 0; i < lines; ++i) REQUIRE(both.send(48, i));
        CHECK_FALSE(both.send(0, 99));
        CHECK(both.producer.try_claim(0) == nullptr);
        CHECK_FALSE(both.producer.claim_open());
        CHECK_FALSE(both.producer.can_advance(0));
        CHECK(both.producer.write_position() == capacity);
        for (std::uint64_t i = 0; i < lines; ++i) REQUIRE(both.take(48, i) == "ok");
        CHECK(both.peek() == Status::empty);
        CHECK(both.ring.dirty_lines() == 0);
        CHECK(both.producer.can_advance(max_message_size(capacity)));
        CHECK(both.send(max_message_size(capacity), 5));
        CHECK(both.take(max_message_size(capacity), 5) == "ok");
    }
}

TEST_CASE("a frame that ends exactly at the end needs no padding and the next starts at the beginning") {
    Both both(512);
    both.advance_to(256);
    const std::uint64_t before = both.producer.write_position();
    REQUIRE(both.send(256 - kFrameHeader, 1));
    CHECK(both.producer.write_position() == before + 256);
    REQUIRE(both.send(1, 2));
    CHECK(both.producer.write_position() == before + 256 + 64);
    CHECK(both.ring.word(0).load() == commit_word(1, 2));
    CHECK(both.take(256 - kFrameHeader, 1) == "ok");
    CHECK(both.take(1, 2) == "ok");
    CHECK(both.ring.fence_intact());
}

TEST_CASE("a frame that would cross the end is preceded by padding and starts at the beginning") {
    Both both(512);
    both.advance_to(384);
    const std::uint64_t before = both.producer.write_position();
    REQUIRE(both.send(129 - kFrameHeader, 1));
    CHECK(both.producer.write_position() == before + 128 + 192);
    CHECK(both.ring.word(384).load() == kPadding);
    CHECK(both.take(129 - kFrameHeader, 1) == "ok");
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
    CHECK(both.published() == both.producer.write_position());
}

TEST_CASE("padding is not published before there is room for the frame behind it as well") {
    Both both(512);
    both.advance_to(128);
    REQUIRE(both.send(240, 1));                      // 128 … 384: with padding to 512, 128 bytes are left
    CHECK(both.producer.try_claim(200) == nullptr);  // 128 of padding and 256 of frame: not now, but one day
    CHECK(both.ring.word(384).load() == 0);
    CHECK_FALSE(both.producer.can_advance(200));
    CHECK(both.send(100, 2));  // so smaller ones still find their place before the end
    CHECK(both.take(240, 1) == "ok");
    CHECK(both.take(100, 2) == "ok");
}

TEST_CASE("padding stands alone where it and the frame behind it can never fit at once") {
    Both both(512);
    both.advance_to(192);
    CHECK(both.producer.can_advance(400));
    CHECK(both.producer.try_claim(400) == nullptr);
    CHECK(both.ring.word(192).load() == kPadding);
    CHECK((both.producer.write_position() & 511) == 0);
    CHECK_FALSE(both.producer.can_advance(400));
    CHECK(both.producer.try_claim(400) == nullptr);  // and is not repeated
    CHECK((both.producer.write_position() & 511) == 0);
    CHECK(both.consumer.has_frame());  // which is what a sleeper looks at
    CHECK(both.peek() == Status::empty);
    CHECK(both.published() == both.producer.write_position());
    CHECK(both.producer.can_advance(400));
    REQUIRE(both.send(400, 3));
    CHECK(both.take(400, 3) == "ok");
}

TEST_CASE("a ring of one message moves, message by message") {
    for (const std::uint64_t capacity : {64u, 128u}) {
        Both both(capacity);
        for (std::uint64_t sequence = 1; sequence < 500; ++sequence) {
            const std::uint64_t size = sequence % (max_message_size(capacity) + 1);
            for (int tries = 0; !both.send(size, sequence); ++tries) {
                REQUIRE(tries < 3);
                REQUIRE(both.peek() == Status::empty);
            }
            REQUIRE(both.take(size, sequence) == "ok");
        }
        CHECK(both.peek() == Status::empty);
        CHECK(both.ring.dirty_lines() == 0);
        CHECK(both.ring.fence_intact());
    }
}

TEST_CASE("a message of max_message_size passes at every position of the ring") {
    for (std::uint64_t capacity = 64; capacity <= 8192; capacity *= 2) {
        Both both(capacity);
        for (std::uint64_t offset = 0; offset < capacity; offset += kLine) {
            both.advance_to(offset);
            for (int tries = 0; !both.send(max_message_size(capacity), offset); ++tries) {
                REQUIRE(tries < 2);  // lone padding, then room
                REQUIRE(both.peek() == Status::empty);
            }
            REQUIRE_FALSE(both.send(0, 0));
            REQUIRE(both.take(max_message_size(capacity), offset) == "ok");
            REQUIRE(both.peek() == Status::empty);
            REQUIRE(both.unknown_dirt() == 0);
        }
        CHECK(both.ring.fence_intact());
    }
}

TEST_CASE("a message just above half of the ring passes at every position") {
    for (const std::uint64_t capacity : {256u, 1024u}) {
        for (const std::uint64_t size :
             {capacity / 2 - 16, capacity / 2 - 15, capacity / 2, capacity / 2 + 48, capacity / 2 + 49}) {
            Both both(capacity);
            for (std::uint64_t sequence = 1; sequence < 300; ++sequence) {
                if (sequence % 3 == 0) {
                    REQUIRE(both.send(0, 1));
                    REQUIRE(both.take(0, 1) == "ok");
                }
                for (int tries = 0; !both.send(size, sequence); ++tries) {
                    REQUIRE(tries < 3);
                    REQUIRE(both.peek() == Status::empty);
                }
                REQUIRE(both.take(size, sequence) == "ok");
            }
        }
    }
}

// ---- claims --------------------------------------------------------------------------------------------------------------

TEST_CASE("what is claimed and not committed is not there") {
    Both both(512);
    std::uint8_t* const payload = both.producer.try_claim(300);
    REQUIRE(payload != nullptr);
    write_message(payload, 300, 300, 1);
    CHECK(both.peek() == Status::empty);
    // A producer that dies just before the commit word has written everything else.
    std::memset(payload - 8, 0xff, 8);
    CHECK(both.peek() == Status::empty);
    CHECK_FALSE(both.consumer.has_frame());
    both.producer.commit(300, 1, 1);
    CHECK(both.take(300, 1) == "ok");
}

TEST_CASE("a claim has room for exactly its size, inside the ring") {
    Both both(1024);
    for (std::uint64_t size = 0; size <= max_message_size(1024); size += 7) {
        std::uint8_t* payload = nullptr;
        for (int tries = 0; (payload = both.producer.try_claim(size)) == nullptr; ++tries) {
            REQUIRE(tries < 3);
            REQUIRE(both.peek() == Status::empty);
        }
        REQUIRE(both.producer.claimed() == frame_size(size));
        REQUIRE(payload >= both.ring.data() + kFrameHeader);
        REQUIRE(payload + size <= both.ring.data() + 1024);
        REQUIRE((payload - both.ring.data()) % 64 == 16);
        write_message(payload, size, size, size);
        both.producer.commit(static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(size), size);
        REQUIRE_FALSE(both.producer.claim_open());
        REQUIRE(both.take(size, size) == "ok");
    }
}

TEST_CASE("an aborted claim leaves no trace at any position") {
    Both both(1024);
    for (std::uint64_t offset = 0; offset < 1024; offset += kLine) {
        both.advance_to(offset);
        for (std::uint64_t size :
             {std::uint64_t{0}, std::uint64_t{48}, std::uint64_t{200}, 1024 - offset - kFrameHeader}) {
            if (size > 1024 - offset - kFrameHeader) continue;
            const std::uint64_t before = both.producer.write_position();
            std::uint8_t* const payload = both.producer.try_claim(size);
            REQUIRE(payload != nullptr);
            write_message(payload, size, both.producer.claimed() - kFrameHeader, 3);
            both.producer.abort();
            REQUIRE_FALSE(both.producer.claim_open());
            REQUIRE(both.producer.write_position() == before);
            REQUIRE(both.ring.dirty_lines() == 0);
            REQUIRE(both.peek() == Status::empty);
        }
    }
    CHECK(both.producer.messages() == both.consumer.messages());
    CHECK(both.ring.fence_intact());
}

TEST_CASE("messages that follow an aborted claim are not taken for its remains") {
    Both both(1024);
    std::uint8_t* const payload = both.producer.try_claim(900);
    REQUIRE(payload != nullptr);
    write_message(payload, 900, both.producer.claimed() - kFrameHeader, 3);
    both.producer.abort();
    for (std::uint64_t sequence = 10; sequence < 15; ++sequence) {
        REQUIRE(both.send(sequence, sequence));
        REQUIRE(both.take(sequence, sequence) == "ok");
        REQUIRE(both.peek() == Status::empty);
    }
}

TEST_CASE("a commit smaller than its claim gives the rest back, clean") {
    Both both(1024);
    Random random(5);
    for (std::uint64_t sequence = 1; sequence < 2000; ++sequence) {
        const std::uint64_t claim = random.below(max_message_size(1024) + 1), size = random.below(claim + 1);
        std::uint8_t* payload = nullptr;
        for (int tries = 0; (payload = both.producer.try_claim(claim)) == nullptr; ++tries) {
            REQUIRE(tries < 3);
            REQUIRE(both.peek() == Status::empty);
        }
        const std::uint64_t before = both.producer.write_position();
        write_message(payload, size, both.producer.claimed() - kFrameHeader, sequence);
        both.producer.commit(static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(sequence), sequence);
        REQUIRE(both.producer.write_position() == before + frame_size(size));
        REQUIRE(both.take(size, sequence) == "ok");
        REQUIRE(both.peek() == Status::empty);
        REQUIRE(both.ring.dirty_lines() == 0);
    }
    CHECK(both.ring.fence_intact());
}

TEST_CASE("an abort after padding leaves the padding, and the ring goes on behind it") {
    Both both(512);
    both.advance_to(448);
    REQUIRE(both.producer.try_claim(100) != nullptr);
    both.producer.abort();
    CHECK(both.ring.word(448).load() == kPadding);
    REQUIRE(both.send(5, 9));
    CHECK(both.take(5, 9) == "ok");
    CHECK(both.ring.word(448).load() == 0);
}

// ---- the layout ----------------------------------------------------------------------------------------------------------

TEST_CASE("the layout of the ring is one number, known when it is compiled") {
    static_assert(tachyon::ring_layout() != 0);
    static_assert(tachyon::detail::mix(1, {1, 2}) != tachyon::detail::mix(1, {2, 1}));
    CHECK(tachyon::ring_layout() == tachyon::ring_layout());
}
