// What each side tells of itself in the header page, for a process that only watches.
#include "both_ends.hpp"
#include "catch.hpp"
#include "half_bus.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

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

TEST_CASE("both sides tell a third process what they have done") {
    BusPair pair = make_pair(4096);
    const SegmentHeader& header = *pair.header;
    Frame frame{};
    for (std::uint64_t i = 0; i < 5; ++i) {
        REQUIRE(send_one(*pair.first, i) == Status::ok);
        sleep_us(15'000);  // each in a tick of its own
        CHECK(header.producer.messages.load() == i + 1);
        CHECK(header.write_position.load() == (i + 1) * kLine);
        REQUIRE(pair.second->try_peek(frame) == Status::ok);
        REQUIRE(pair.second->release(frame) == Status::ok);
    }
    const std::uint64_t waits = header.consumer.waits.load(), parks = header.consumer.parks.load();
    CHECK(pair.second->wait_readable(in_ms(20)) == Status::empty);
    CHECK(header.consumer.waits.load() == waits + 1);
    CHECK(header.consumer.parks.load() == parks + 1);
    CHECK(header.consumer.parks.load() == pair.second->stats().parks);
    CHECK(header.consumer.messages.load() == 5);
    CHECK(header.consumer.active_ns.load() != 0);
    REQUIRE(send_one(*pair.first, 5) == Status::ok);
    pair.first->close();
    CHECK(header.producer.messages.load() == 6);
    CHECK(header.producer.active_ns.load() != 0);
    CHECK(header.producer.waits.load() == 0);
}
