// Closes and deaths, played by hand: what was committed before comes first.
#include <cstring>

#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("everything committed before a close is read before the close is told") {
    BusPair pair = make_pair(4096);
    for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(send_one(*pair.first, i, 100) == Status::ok);
    std::uint8_t* payload = nullptr;
    REQUIRE(pair.first->try_claim(50, payload) == Status::ok);  // never committed
    std::memset(payload, 0xff, 50);
    SECTION("closed") { pair.first->close(); }
    SECTION("destroyed") { pair.first.reset(); }
    for (std::uint64_t i = 1; i <= 10; ++i) {
        CHECK(pair.second->wait_readable(kNever) == Status::ok);
        REQUIRE(take_one(*pair.second, i) == Status::ok);
    }
    Frame frame{};
    for (int i = 0; i < 3; ++i) CHECK(pair.second->try_peek(frame) == Status::peer_closed);
    CHECK(pair.second->state() == Status::ok);  // its own handle is still open
    CHECK(receive(*pair.second, frame, kNever) == Status::peer_closed);
}

TEST_CASE("everything committed before a death is read before the death is told") {
    HalfBus half;
    set_role(half, kConnector);
    Producer producer(half.memory.ring(Barrier::locked));
    for (std::uint64_t i = 1; i <= 10; ++i) {
        std::uint8_t* const payload = producer.try_claim(100);
        REQUIRE(payload != nullptr);
        write_message(payload, 100, 100, i);
        producer.commit(100, static_cast<std::uint32_t>(i), i);
    }
    std::uint8_t* const payload = producer.try_claim(100);  // half a frame: all but the commit word
    REQUIRE(payload != nullptr);
    std::memset(payload - 8, 0xff, 108);
    half.die();
    for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(take_one(*half.bus, i) == Status::ok);
    Frame frame{};
    CHECK(settled_peek(*half.bus, frame) == Status::peer_dead);
    CHECK(receive(*half.bus, frame, kNever) == Status::peer_dead);
}

TEST_CASE("a death that was told once is told by every later look") {
    HalfBus half;
    half.die();
    Frame frame{};
    REQUIRE(settled_peek(*half.bus, frame) == Status::peer_dead);
    for (int i = 0; i < 100; ++i) REQUIRE(half.bus->try_peek(frame) == Status::peer_dead);
}

TEST_CASE("a death before anything was sent is told to whoever reads or writes") {
    Frame frame{};
    HalfBus reader;
    reader.die();
    CHECK(settled_peek(*reader.bus, frame) == Status::peer_dead);
    HalfBus writer;
    writer.die();
    CHECK(send_one(*writer.bus, 1) == Status::peer_dead);
    CHECK(send_one(*writer.bus, 2) == Status::peer_dead);
}

TEST_CASE("a close before anything was sent is told to whoever reads or writes") {
    Frame frame{};
    BusPair reading = make_pair(4096);
    reading.first->close();
    CHECK(reading.second->wait_readable(kNever) == Status::ok);
    CHECK(reading.second->try_peek(frame) == Status::peer_closed);
    BusPair writing = make_pair(4096);
    writing.first->close();
    CHECK(send_one(*writing.second, 1) == Status::peer_closed);
    std::uint8_t* payload = nullptr;
    CHECK(writing.second->try_claim(1, payload) == Status::peer_closed);
    CHECK(writing.second->wait_writable(1, kNever) == Status::peer_closed);
}

TEST_CASE("a message that comes between the reader's look at the ring and its look at the peer is not lost") {
    // The last message and the end come between the look at the ring and the look at the peer, sooner or later.
    std::uint64_t lost = 0, rounds = 0;
    const std::uint64_t until = in_ms(long_form() ? 30'000 : 500);
    Random random(61);
    while (now_ns() < until) {
        const bool closes = rounds++ % 2 == 0;
        HalfBus half;
        set_role(half, kConnector);
        Producer producer(half.memory.ring(Barrier::locked));
        std::atomic<bool> reading{false};
        std::thread ending([&] {
            while (!reading) cpu_relax();
            for (std::uint64_t n = random.below(300); n > 0; --n) cpu_relax();
            (void)producer.try_send("last", 4, 2, 2);
            if (closes) half.header->connector_closed.store(1);
            half.die();
        });
        Frame frame{};
        Status status = Status::empty;
        while (status == Status::empty) {
            status = half.bus->try_peek(frame);
            reading = true;
        }
        lost += status != Status::ok;
        ending.join();
    }
    CHECK(lost == 0);
    CHECK(rounds > 10);
}

TEST_CASE("a producer is told of the consumer's close by the next send, and by its wait") {
    BusPair pair = make_pair(128);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    SECTION("with room left") {
        pair.second->close();
        CHECK(pair.first->wait_writable(1, kNever) == Status::peer_closed);  // though there is room
        CHECK(send_one(*pair.first, 2) == Status::peer_closed);
    }
    SECTION("with none left") {
        REQUIRE(send_one(*pair.first, 2) == Status::ok);
        pair.second->close();
        CHECK(pair.first->wait_writable(1, kNever) == Status::peer_closed);
        CHECK(send_one(*pair.first, 3) == Status::peer_closed);
    }
    SECTION("with a claim open") {
        std::uint8_t* payload = nullptr;
        REQUIRE(pair.first->try_claim(10, payload) == Status::ok);
        pair.second->close();
        write_message(payload, 10, 10, 2);
        CHECK(pair.first->commit(10, 2, 2) == Status::peer_closed);
    }
    for (int i = 0; i < 3; ++i) CHECK(send_one(*pair.first, 9) == Status::peer_closed);
    CHECK(pair.first->wait_writable(1, kNever) == Status::peer_closed);
    CHECK(pair.first->abort() == Status::peer_closed);
    CHECK(pair.first->state() == Status::ok);
}

TEST_CASE("a producer that waits for room is told of the consumer's death") {
    HalfBus half(128);
    REQUIRE(send_one(*half.bus, 1) == Status::ok);
    REQUIRE(send_one(*half.bus, 2) == Status::ok);
    half.die();
    std::uint8_t bytes[8] = {};
    CHECK(send(*half.bus, bytes, 8, 1, 1, in_ms(30'000)) == Status::peer_dead);
    CHECK(half.bus->wait_writable(1, kNever) == Status::peer_dead);
}

TEST_CASE("a producer with room is told of the consumer's death by its next send, however seldom it sends") {
    for (const std::uint64_t before : {1u, 100u}) {  // also after it has been fast
        HalfBus half(1 << 20);
        for (std::uint64_t i = 0; i < before; ++i) REQUIRE(send_one(*half.bus, i) == Status::ok);
        half.die();
        sleep_us(15'000);  // a tick of the slowest kernel, and a little
        CHECK(send_one(*half.bus, before) == Status::peer_dead);
        CHECK(send_one(*half.bus, before) == Status::peer_dead);
    }
}

TEST_CASE("a producer with room is told of the consumer's death by a later send") {
    HalfBus half(1 << 20);
    REQUIRE(send_one(*half.bus, 1) == Status::ok);
    half.die();
    Status status = Status::ok;
    CHECK(eventually([&] { return (status = send_one(*half.bus, 2)) != Status::ok; }, 2'000));
    CHECK(status == Status::peer_dead);
}

TEST_CASE("a hang-up after the closed flag is a close, and one without it a death") {
    for (const bool closed : {true, false}) {
        HalfBus reader, writer;
        set_role(reader, kConnector);
        REQUIRE(send_one(*writer.bus, 1) == Status::ok);
        if (closed) {
            reader.header->connector_closed.store(1);
            writer.header->connector_closed.store(1);
        } else {  // its own side's flag says nothing about the peer
            reader.header->listener_closed.store(1);
            writer.header->listener_closed.store(1);
        }
        reader.die();
        writer.die();
        const Status expected = closed ? Status::peer_closed : Status::peer_dead;
        Frame frame{};
        CHECK(settled_peek(*reader.bus, frame) == expected);
        Status status = Status::ok;
        CHECK(eventually([&] { return (status = send_one(*writer.bus, 2)) != Status::ok; }, 10'000));
        CHECK(status == expected);
    }
}

TEST_CASE("a reader that still holds frames is told of the end too, and may release them afterwards") {
    for (const bool closed : {true, false}) {
        HalfBus half;
        set_role(half, kConnector);
        Producer producer(half.memory.ring(Barrier::locked));
        REQUIRE(producer.try_send("abc", 3, 1, 1));
        Frame frame{}, next{};
        REQUIRE(half.bus->try_peek(frame) == Status::ok);
        if (closed) half.header->connector_closed.store(1);
        half.die();
        // A wait that says "look", and a look that says "nothing", would make its caller turn in circles.
        CHECK(receive(*half.bus, next, in_ms(300)) == (closed ? Status::peer_closed : Status::peer_dead));
        CHECK(frame.payload[2] == 'c');
        CHECK(half.bus->release(frame) == Status::ok);
        CHECK(settled_peek(*half.bus, next) == (closed ? Status::peer_closed : Status::peer_dead));
    }
}

TEST_CASE("an own handle that is closed says so, whatever is asked, and its frames stay readable") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    Frame frame{};
    REQUIRE(pair.second->try_peek(frame) == Status::ok);
    pair.second->close();
    pair.second->close();
    pair.first->close();
    CHECK(check_message(frame, 1) == nullptr);
    std::uint8_t* payload = nullptr;
    for (Bus* const bus : {pair.first.get(), pair.second.get()}) {
        Frame other{};
        CHECK(bus->state() == Status::closed);
        CHECK(bus->try_peek(other) == Status::closed);
        CHECK(bus->release(frame) == Status::closed);
        CHECK(bus->wait_readable(kNever) == Status::closed);
        CHECK(bus->wait_writable(1, kNever) == Status::closed);
        CHECK(send_one(*bus, 2) == Status::closed);
        CHECK(bus->try_send_quietly("x", 1, 1) == Status::closed);
        CHECK(bus->try_claim(1, payload) == Status::closed);
        CHECK(bus->commit(1, 1) == Status::closed);
        CHECK(bus->abort() == Status::closed);
        bus->put_back(frame);
        bus->hand_back();
        bus->wake_consumer();
        bus->request_close();
        (void)bus->stats();
    }
}
