#include "tachyon/ring/ring.hpp"

#include <deque>
#include <vector>

#include "both.hpp"
#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

void put_word(const FencedRing& ring, std::uint64_t offset, std::uint64_t word) { ring.word(offset).store(word); }

}  // namespace

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

// ---- holding -------------------------------------------------------------------------------------------------------------

TEST_CASE("a whole ring of frames may be held, and its oldest is not seen twice") {
    for (const std::uint64_t capacity : {64u, 128u, 1024u}) {
        Both both(capacity);
        const std::uint64_t lines = capacity / kLine;
        for (std::uint64_t lap = 0; lap < 5; ++lap) {
            std::vector<Frame> held;
            for (std::uint64_t i = 0; i < lines; ++i) REQUIRE(both.send(48, lap * lines + i));
            while (both.peek() == Status::ok) {
                held.push_back(both.last);
                REQUIRE(held.size() <= lines);
            }
            REQUIRE(held.size() == lines);
            CHECK(both.consumer.held() == lines);
            CHECK_FALSE(both.consumer.has_frame());
            CHECK_FALSE(both.send(0, 1));
            for (std::uint64_t i = 0; i < lines; ++i) {
                REQUIRE(check_message(held[i], lap * lines + i) == nullptr);
                both.consumer.release(held[i]);
                REQUIRE(both.peek() == Status::empty);
            }
            REQUIRE(both.send(48, 77));
            REQUIRE(both.take(48, 77) == "ok");
            REQUIRE(both.peek() == Status::empty);
        }
    }
}

TEST_CASE("one frame that fills the ring may be held, and is not seen twice") {
    Both both(1024);
    REQUIRE(both.send(max_message_size(1024), 1));
    REQUIRE(both.peek() == Status::ok);
    const Frame frame = both.last;
    CHECK(both.peek() == Status::empty);
    CHECK_FALSE(both.consumer.has_frame());
    CHECK_FALSE(both.send(0, 2));
    CHECK(check_message(frame, 1) == nullptr);
    both.consumer.release(frame);
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("padding between held frames is freed with the frame before it") {
    Both both(512);
    both.advance_to(256);
    REQUIRE(both.send(100, 1));  // 256 … 384
    REQUIRE(both.send(130, 2));  // padding 384 … 512, then 0 … 192
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    REQUIRE(both.peek() == Status::ok);
    const Frame second = both.last;
    CHECK(check_message(second, 2) == nullptr);
    both.consumer.release(first);
    CHECK(both.consumer.held() == 1);
    CHECK(both.consumer.freed_position() == first.position + 128);
    both.consumer.release(second);
    CHECK(both.consumer.held() == 0);
    CHECK(both.consumer.freed_position() == both.producer.write_position());
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("padding behind the last held frame is freed with it") {
    Both both(512);
    both.advance_to(256);
    REQUIRE(both.send(100, 1));                      // 256 … 384
    CHECK(both.producer.try_claim(450) == nullptr);  // lone padding 384 … 512
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    CHECK(both.peek() == Status::empty);  // passes the padding
    both.consumer.release(first);
    CHECK(both.consumer.freed_position() == both.producer.write_position());
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
    CHECK(both.send(450, 2));
    CHECK(both.take(450, 2) == "ok");
}

TEST_CASE("a frame put back is the next one again") {
    Both both(1024);
    for (std::uint64_t i = 1; i <= 3; ++i) REQUIRE(both.send(10 * i, i));
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    REQUIRE(both.peek() == Status::ok);
    const Frame second = both.last;
    both.consumer.put_back(second);
    CHECK(both.consumer.held() == 1);
    REQUIRE(both.peek() == Status::ok);
    CHECK(check_message(both.last, 2) == nullptr);
    both.consumer.put_back(both.last);
    both.consumer.put_back(first);
    CHECK(both.consumer.held() == 0);
    for (std::uint64_t i = 1; i <= 3; ++i) CHECK(both.take(10 * i, i) == "ok");
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("all frames that are held are put back at once, padding between them or not") {
    Both both(512);
    both.advance_to(256);
    REQUIRE(both.send(100, 1));
    REQUIRE(both.send(130, 2));  // behind padding
    for (int round = 0; round < 3; ++round) {
        REQUIRE(both.peek() == Status::ok);
        REQUIRE(both.peek() == Status::ok);
        both.consumer.put_back_all();
        CHECK(both.consumer.held() == 0);
    }
    CHECK(both.take(100, 1) == "ok");
    CHECK(both.take(130, 2) == "ok");
    both.consumer.put_back_all();  // nothing is held: no effect
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("only the oldest frame that is held, and unchanged, passes for it") {
    Both both(512);
    both.advance_to(256);
    REQUIRE(both.send(100, 1));
    REQUIRE(both.send(130, 2));  // behind padding
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    REQUIRE(both.peek() == Status::ok);
    const Frame second = both.last;
    CHECK(both.consumer.is_oldest(first));
    CHECK_FALSE(both.consumer.is_oldest(second));
    for (const std::uint32_t size : {99u, 101u, 0u, 300u, UINT32_MAX}) {
        Frame wrong = first;
        wrong.size = size;
        CHECK_FALSE(both.consumer.is_oldest(wrong));
    }
    for (const std::uint64_t position : {std::uint64_t{0}, first.position + 64, first.position + 512, UINT64_MAX}) {
        Frame wrong = first;
        wrong.position = position;
        CHECK_FALSE(both.consumer.is_oldest(wrong));
    }
    both.consumer.release(first);
    CHECK_FALSE(both.consumer.is_oldest(first));
    CHECK(both.consumer.is_oldest(second));  // although the padding before it has not been freed
    both.consumer.release(second);
    CHECK_FALSE(both.consumer.is_oldest(second));
}

TEST_CASE("the layout of the ring is one number, known when it is compiled") {
    static_assert(tachyon::ring_layout() != 0);
    static_assert(tachyon::detail::mix(1, {1, 2}) != tachyon::detail::mix(1, {2, 1}));
    CHECK(tachyon::ring_layout() == tachyon::ring_layout());
}

TEST_CASE("frames put back across padding are found again") {
    Both both(512);
    both.advance_to(256);
    REQUIRE(both.send(100, 1));
    REQUIRE(both.send(130, 2));
    for (int round = 0; round < 3; ++round) {
        REQUIRE(both.peek() == Status::ok);
        const Frame first = both.last;
        REQUIRE(both.peek() == Status::ok);
        both.consumer.put_back(both.last);
        both.consumer.put_back(first);
    }
    CHECK(both.take(100, 1) == "ok");
    CHECK(both.take(130, 2) == "ok");
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
    CHECK(both.published() == both.producer.write_position());
}

TEST_CASE("a frame put back behind padding survives the release of the one before") {
    Both both(512);
    both.advance_to(256);
    REQUIRE(both.send(100, 1));
    REQUIRE(both.send(130, 2));
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    REQUIRE(both.peek() == Status::ok);
    both.consumer.put_back(both.last);
    both.consumer.release(first);
    CHECK(both.take(130, 2) == "ok");
    CHECK(both.peek() == Status::empty);
    CHECK(both.ring.dirty_lines() == 0);
}

// ---- read_position -------------------------------------------------------------------------------------------------------

TEST_CASE("read_position is published once an eighth of the ring has gathered, and not for every message") {
    Both both(4096);  // an eighth is eight lines
    for (std::uint64_t i = 0; i < 20; ++i) REQUIRE(both.send(0, i));
    for (std::uint64_t i = 0; i < 20; ++i) {
        REQUIRE(both.take(0, i) == "ok");
        CHECK(both.published() == (i + 1) / 8 * 8 * kLine);
    }
}

TEST_CASE("a peek that finds nothing publishes everything freed before") {
    Both both(4096);
    REQUIRE(both.send(0, 1));
    REQUIRE(both.take(0, 1) == "ok");
    CHECK(both.published() == 0);
    CHECK(both.peek() == Status::empty);
    CHECK(both.published() == kLine);
}

TEST_CASE("a peek that finds nothing publishes what was freed even while frames are held") {
    Both both(4096);
    REQUIRE(both.send(0, 1));
    REQUIRE(both.send(0, 2));
    REQUIRE(both.peek() == Status::ok);
    const Frame first = both.last;
    REQUIRE(both.peek() == Status::ok);
    both.consumer.release(first);
    CHECK(both.published() == 0);
    CHECK(both.peek() == Status::empty);
    CHECK(both.published() == kLine);
}

TEST_CASE("hand_back publishes what was freed at once") {
    Both both(4096);
    REQUIRE(both.send(0, 1));
    REQUIRE(both.take(0, 1) == "ok");
    both.consumer.hand_back();
    CHECK(both.published() == kLine);
}

TEST_CASE("while the producer is parked every release publishes at once and ends its sleep") {
    for (const Barrier barrier : {Barrier::locked, Barrier::membarrier}) {
        Both both(4096, barrier);
        for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(both.send(0, i));
        for (std::uint64_t i = 0; i < 3; ++i) {
            both.ring.header().producer_parked.store(1);
            REQUIRE(both.take(0, i) == "ok");
            CHECK(both.published() == (i + 1) * kLine);
            CHECK(both.ring.header().producer_parked.load() == 0);
            CHECK(both.consumer.wakes() == i + 1);
        }
    }
}

TEST_CASE("publishing with nobody parked wakes nobody") {
    Both both(64);
    REQUIRE(both.send(0, 1));
    REQUIRE(both.take(0, 1) == "ok");
    CHECK(both.published() == kLine);
    CHECK(both.consumer.wakes() == 0);
    CHECK(both.producer.wakes() == 0);
}

TEST_CASE("the producer looks at read_position only when the ring seems full") {
    Both both(1024);
    for (std::uint64_t i = 0; i < 16; ++i) {
        REQUIRE(both.send(0, i));
        REQUIRE(both.take(0, i) == "ok");
        CHECK(both.producer.cached_read_position() == 0);
    }
    REQUIRE(both.send(0, 16));
    CHECK(both.producer.cached_read_position() == both.published());
}

// ---- what a third process sees -----------------------------------------------------------------------------------------------

TEST_CASE("a consumer tells of itself whenever it publishes read_position") {
    Both both(4096);
    const SideCounters& consumer = both.ring.header().consumer;
    for (std::uint64_t i = 0; i < 10; ++i) {
        REQUIRE(both.send(0, i));
        REQUIRE(both.take(0, i) == "ok");
    }
    CHECK(consumer.messages.load() == 8);  // an eighth of the ring
    both.ring.header().producer_parked.store(1);
    const std::uint64_t before = now_ns();
    CHECK(both.peek() == Status::empty);
    CHECK(consumer.messages.load() == 10);
    CHECK(consumer.active_ns.load() >= before - 100 * kMillisecond);
    CHECK(consumer.active_ns.load() <= now_ns());
    REQUIRE(both.send(0, 10));
    REQUIRE(both.take(0, 10) == "ok");
    CHECK(both.peek() == Status::empty);
    CHECK(consumer.wakes.load() == 1);
    CHECK(consumer.messages.load() == 11);
}

TEST_CASE("a producer tells of itself once a lap, and when it is asked to") {
    Both both(1024);
    const SegmentHeader& header = both.ring.header();
    for (std::uint64_t i = 0; i < 17; ++i) {
        CHECK(header.producer.messages.load() == 0);
        both.ring.header().consumer_parked.store(1);
        REQUIRE(both.send(0, i));
        REQUIRE(both.take(0, i) == "ok");
    }
    CHECK(header.producer.messages.load() == 16);  // of the lap before, when it looked for room
    CHECK(header.producer.wakes.load() == 16);
    CHECK(header.write_position.load() == 1024);
    CHECK(header.producer.active_ns.load() != 0);
    both.producer.report(5);
    CHECK(header.producer.messages.load() == 17);
    CHECK(header.write_position.load() == both.producer.write_position());
    CHECK(header.producer.active_ns.load() == 5);
}

TEST_CASE("nobody in the bus believes what the sides tell of themselves") {
    Both both(1024);
    for (std::uint64_t i = 0; i < 100; ++i) {
        both.ring.header().write_position.store(~i);
        both.ring.header().producer.messages.store(~i);
        both.ring.header().consumer.messages.store(~i);
        REQUIRE(both.send(i % 200, i));
        REQUIRE(both.take(i % 200, i) == "ok");
        REQUIRE(both.peek() == Status::empty);
    }
}

// ---- waking --------------------------------------------------------------------------------------------------------------

TEST_CASE("a commit resets the word of a parked consumer and wakes it, in both forms of the barrier") {
    for (const Barrier barrier : {Barrier::locked, Barrier::membarrier}) {
        Both both(1024, barrier);
        auto& parked = both.ring.header().consumer_parked;
        for (const std::uint64_t size : {5u, 200u}) {
            parked.store(1);
            const std::uint64_t wakes = both.producer.wakes();
            REQUIRE(both.send(size, 1));
            CHECK(parked.load() == 0);
            CHECK(both.producer.wakes() == wakes + 1);
            REQUIRE(both.send(size, 2));
            CHECK(both.producer.wakes() == wakes + 1);
        }
    }
}

TEST_CASE("padding wakes a parked consumer, even alone") {
    Both both(512);
    both.advance_to(64);
    both.ring.header().consumer_parked.store(1);
    CHECK(both.producer.try_claim(480) == nullptr);
    CHECK(both.ring.word(64).load() == kPadding);
    CHECK(both.ring.header().consumer_parked.load() == 0);
    CHECK(both.producer.wakes() == 1);
}

TEST_CASE("a commit that wakes later leaves the sleeper until it is woken") {
    Both both(512);
    auto& parked = both.ring.header().consumer_parked;
    parked.store(1);
    REQUIRE(both.producer.try_send<Wake::later>("abc", 3, 1));
    CHECK(parked.load() == 1);
    REQUIRE(both.producer.try_claim(3) != nullptr);
    both.producer.commit<Wake::later>(3, 1);
    CHECK(parked.load() == 1);
    CHECK(both.producer.wake_consumer());
    CHECK(parked.load() == 0);
    CHECK_FALSE(both.producer.wake_consumer());
    CHECK(both.producer.wakes() == 1);
}

// ---- a peer that lies ------------------------------------------------------------------------------------------------------

TEST_CASE("a frame that reaches beyond the end of the ring is corrupt") {
    for (const std::uint64_t offset : {0u, 64u, 448u}) {
        Both both(512);
        both.advance_to(offset);
        for (const std::uint64_t size : {512 - offset - kFrameHeader + 1, std::uint64_t{512}, std::uint64_t{0x7fffffff},
                                         std::uint64_t{0xfffffffd}}) {
            put_word(both.ring, offset, commit_word(static_cast<std::uint32_t>(size), 1));
            CHECK(both.peek() == Status::corrupt);
            CHECK(both.consumer.held() == 0);
        }
        put_word(both.ring, offset, commit_word(static_cast<std::uint32_t>(512 - offset - kFrameHeader), 1));
        CHECK(both.peek() == Status::ok);  // one byte less is the largest that can lie there
    }
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

// ---- everything at once ----------------------------------------------------------------------------------------------------

// The ring against a plain queue, one step of either side at a time, so that every rule is looked at after every step.
TEST_CASE("any order of steps keeps messages, order and the invariants of the ring") {
    Random random(13);
    const std::uint64_t until = in_ms(long_form() ? 120'000 : 3000);
    std::uint64_t messages = 0;
    do {
        const std::uint64_t capacity = std::uint64_t{64} << random.below(7), max = max_message_size(capacity);
        const std::uint64_t bulk = random.one_in(3) ? kBulk : 2 * kLine << random.below(3);
        Both both(capacity, random.one_in(2) ? Barrier::locked : Barrier::membarrier, bulk);
        std::deque<std::pair<std::uint64_t, std::uint64_t>> sent;  // size, sequence; oldest first, not yet peeked
        std::deque<std::pair<std::uint64_t, std::uint64_t>> peeked;
        std::deque<Frame> held;
        std::uint64_t sequence = 0, stuck = 0;
        for (int step = 0; step < 3000; ++step) {
            const std::uint64_t written = both.producer.write_position();
            REQUIRE(both.published() <= both.consumer.freed_position());
            REQUIRE(both.consumer.freed_position() <= written);
            REQUIRE(written - both.published() <= capacity);
            // The invariant that everything rests on, unless the word is the oldest frame's.
            if (written - both.consumer.freed_position() < capacity) REQUIRE(both.ring.word(written).load() == 0);
            REQUIRE(both.unknown_dirt() == 0);
            switch (random.below(8)) {
                case 0:
                case 1:
                case 2: {
                    const std::uint64_t size = pick_size(random, max),
                                        claim = random.one_in(3) ? size + random.below(max - size + 1) : size;
                    const bool could = both.producer.can_advance(claim);
                    std::uint8_t* const payload = both.producer.try_claim(claim);
                    REQUIRE(could == (payload != nullptr || both.producer.write_position() != written));
                    if (payload == nullptr) break;
                    write_message(payload, size, both.producer.claimed() - kFrameHeader, sequence + 1);
                    if (random.one_in(5)) {
                        both.producer.abort();
                        break;
                    }
                    ++sequence;
                    both.producer.commit(static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(sequence),
                                         sequence);
                    sent.emplace_back(size, sequence);
                    break;
                }
                case 3: {
                    const std::uint64_t size = pick_size(random, max);
                    if (both.send(size, sequence + 1)) sent.emplace_back(size, ++sequence);
                    break;
                }
                case 4:
                case 5: {
                    Frame frame;
                    const Status status = both.consumer.peek(frame);
                    REQUIRE(status == (sent.empty() ? Status::empty : Status::ok));
                    if (status == Status::empty) {
                        REQUIRE(both.published() == both.consumer.freed_position());
                        break;
                    }
                    REQUIRE(frame.size == sent.front().first);
                    REQUIRE(check_message(frame, sent.front().second) == nullptr);
                    held.push_back(frame);
                    peeked.push_back(sent.front());
                    sent.pop_front();
                    break;
                }
                case 6: {
                    const std::uint64_t count = random.below(held.size() + 1);
                    for (std::uint64_t i = 0; i < count; ++i) {
                        REQUIRE(check_message(held.front(), peeked.front().second) == nullptr);  // still whole
                        both.consumer.release(held.front());
                        held.pop_front();
                        peeked.pop_front();
                        ++messages;
                    }
                    if (count > 0) REQUIRE(both.consumer.freed_position() - both.published() < capacity / 8);
                    break;
                }
                default:
                    if (held.empty() || !random.one_in(3)) break;
                    both.consumer.put_back(held.back());
                    sent.push_front(peeked.back());
                    held.pop_back();
                    peeked.pop_back();
            }
            REQUIRE(both.consumer.held() == held.size());
        }
        // With everything given back, the largest message finds its way.
        while (!held.empty()) {
            both.consumer.release(held.front());
            held.pop_front();
        }
        while (!sent.empty()) {
            REQUIRE(both.take(sent.front().first, sent.front().second) == "ok");
            sent.pop_front();
        }
        REQUIRE(both.peek() == Status::empty);
        REQUIRE(both.unknown_dirt() == 0);
        while (!both.send(max, 1)) {
            REQUIRE(++stuck < 3);
            REQUIRE(both.peek() == Status::empty);
        }
        REQUIRE(both.ring.fence_intact());
    } while (now_ns() < until);
    CHECK(messages > 1000);
}
