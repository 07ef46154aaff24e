// Frames that are held, what is told of them through read_position, and who is woken by it.
#include <vector>

#include "both_ends.hpp"

using namespace tachyon;
using namespace tachyon::test;

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
