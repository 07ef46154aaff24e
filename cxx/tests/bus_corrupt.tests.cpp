// A peer that lies in the memory of a bus.
#include <vector>

#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a role that cannot be is corrupt, for a reader and for a writer") {
    for (const std::uint32_t role : {3u, 77u, 0xffffffffu, kListener}) {
        Frame frame{};
        HalfBus reader;  // the listener, which has sent nothing
        set_role(reader, role);
        CHECK(reader.bus->try_peek(frame) == Status::corrupt);
        CHECK(reader.bus->try_peek(frame) == Status::corrupt);
        CHECK(reader.bus->state() == Status::corrupt);
        HalfBus waiter;
        set_role(waiter, role);
        CHECK(waiter.bus->wait_readable(kNever) == Status::corrupt);
        HalfBus writer;
        set_role(writer, role);
        CHECK(send_one(*writer.bus, 1) == Status::corrupt);
        CHECK(writer.bus->state() == Status::corrupt);
        CHECK(writer.bus->stats().producer == (role == kListener ? Side::listener : Side::undecided));
    }
}

TEST_CASE("a message from nobody is corrupt") {
    HalfBus half;
    detail::word_at(half.data).store(commit_word(5, 5));
    Frame frame{};
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("an impossible message poisons the handle, and only the handle") {
    HalfBus half;
    set_role(half, kConnector);
    Producer producer(half.memory.ring(Barrier::locked));
    REQUIRE(producer.try_send("abc", 3, 1, 1));
    Frame held{}, frame{};
    REQUIRE(half.bus->try_peek(held) == Status::ok);
    detail::word_at(half.data + 64).store(commit_word(4096, 1));
    CHECK(half.bus->wait_readable(kNever) == Status::ok);
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
    detail::word_at(half.data + 64).store(commit_word(1, 1));
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
    CHECK(half.bus->wait_readable(kNever) == Status::corrupt);
    CHECK(half.bus->release(held) == Status::corrupt);
    CHECK(send_one(*half.bus, 1) == Status::corrupt);
    CHECK(half.bus->state() == Status::corrupt);
    half.bus->close();
    CHECK(half.bus->state() == Status::closed);
}

TEST_CASE("an impossible message that the peer leaves behind is corrupt, not a close") {
    HalfBus half;
    set_role(half, kConnector);
    detail::word_at(half.data).store(commit_word(1 << 20, 1));
    half.header->connector_closed.store(1);
    half.die();
    Frame frame{};
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("an impossible read_position poisons the handle and ends a wait for room") {
    HalfBus half(128);
    REQUIRE(send_one(*half.bus, 1) == Status::ok);
    REQUIRE(send_one(*half.bus, 2) == Status::ok);
    half.header->read_position.store(129);
    SECTION("seen by a send") { CHECK(send_one(*half.bus, 3) == Status::corrupt); }
    SECTION("seen by a wait") {
        CHECK(half.bus->wait_writable(1, kNever) == Status::ok);  // something to see
        CHECK(send_one(*half.bus, 3) == Status::corrupt);
    }
    SECTION("seen by a claim") {
        std::uint8_t* payload = nullptr;
        CHECK(half.bus->try_claim(3, payload) == Status::corrupt);
    }
    half.header->read_position.store(64);
    CHECK(send_one(*half.bus, 3) == Status::corrupt);
    CHECK(half.bus->wait_writable(1, kNever) == Status::corrupt);
    CHECK(half.bus->commit(1, 1) == Status::corrupt);
}

TEST_CASE("whatever a peer scribbles, and wherever, the bus answers with a status") {
    Random random(41);
    const std::uint64_t until = in_ms(long_form() ? 300'000 : 1'500);
    std::uint64_t rounds = 0, corrupt = 0;
    for (; now_ns() < until; ++rounds) {
        const std::uint64_t capacity = std::uint64_t{64} << random.below(7);
        HalfBus half(capacity, random.one_in(2) ? Side::listener : Side::connector);
        auto* const words = reinterpret_cast<std::atomic<std::uint64_t>*>(half.header);
        std::vector<Frame> held;
        for (int step = 0; step < 100; ++step) {
            switch (random.below(6)) {
                case 0: words[random.below((kHeaderBytes + capacity) / 8)].store(random.next()); break;
                case 1:
                    detail::word_at(half.data + random.below(capacity / 64) * 64)
                        .store(commit_word(static_cast<std::uint32_t>(random.below(capacity)), 1));
                    break;
                case 2: half.header->read_position.store(random.below(4 * capacity)); break;
                case 3: half.header->producer_side.store(static_cast<std::uint32_t>(random.below(4))); break;
                case 4: half.header->consumer_parked.store(static_cast<std::uint32_t>(random.below(3))); break;
                default: break;
            }
            Frame frame{};
            switch (random.below(6)) {
                case 0:
                    if (half.bus->try_peek(frame) == Status::ok) held.push_back(frame);
                    break;
                case 1:
                    if (!held.empty()) {
                        (void)half.bus->release(held.front());
                        held.erase(held.begin());
                    }
                    break;
                case 2: (void)send_one(*half.bus, 1, random.below(capacity)); break;
                case 3: (void)half.bus->wait_readable(now_ns() + 1000); break;
                case 4: (void)half.bus->wait_writable(random.below(capacity), now_ns() + 1000); break;
                default: (void)half.bus->stats(); break;
            }
        }
        corrupt += half.bus->state() == Status::corrupt;
    }
    CHECK(rounds > 10);
    CHECK(corrupt > 0);
}
