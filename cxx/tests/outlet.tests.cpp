#include "tachyon/port/outlet.hpp"

#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/batch.hpp"
#include "tachyon/bus.hpp"

using namespace tachyon;
using namespace tachyon::test;
using namespace std::chrono_literals;

namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

struct Ends {
    explicit Ends(std::uint64_t capacity = 4096) : pair(make_pair(capacity)) {}
    // Fills the ring with messages of one line.
    std::uint64_t fill() {
        std::uint64_t count = 0;
        while (producer.try_send("x", 1, 0) == Status::ok) ++count;
        return count;
    }
    // The text of the next message, or the status.
    std::string take() {
        const Message message = consumer.try_recv();
        return message ? std::string(message.text()) : std::to_string(-static_cast<int>(message.status()));
    }
    BusPair pair;
    Bus& producer = *pair.first;
    Bus& consumer = *pair.second;
};

// Counts how often the lock was let go; a copy or sleep happens between the two.
struct Counting {
    int unlocks = 0;
    bool locked = true;
    Host host() {
        return {[](void* context) {
                    auto& it = *static_cast<Counting*>(context);
                    ++it.unlocks;
                    it.locked = false;
                },
                [](void* context) { static_cast<Counting*>(context)->locked = true; }, this};
    }
};

}  // namespace

TEST_CASE("a send waits for room, for so long") {
    Ends ends;
    ends.fill();
    CHECK(ends.producer.send(bytes("late"), 1, 0ms) == Status::full);
    CHECK(ends.producer.send(bytes("late"), 1, Waiting::until(now_ns() - 1)) == Status::full);
    CHECK(ends.producer.send(bytes("late"), 1, 1ms) == Status::full);
    CHECK(ends.producer.claim(10, 1ms).status() == Status::full);
    std::thread reader([&] {
        sleep_us(20'000);
        for (int i = 0; i < 64; ++i) (void)ends.consumer.recv();
    });
    CHECK(ends.producer.send(bytes("in time"), 1) == Status::ok);
    reader.join();
    CHECK(ends.take() == "in time");
}

TEST_CASE("a send that waits ends with the consumer") {
    Ends ends;
    ends.fill();
    std::thread closer([&] {
        sleep_us(20'000);
        ends.consumer.close();
    });
    CHECK(ends.producer.send(bytes("x"), 1) == Status::peer_closed);
    closer.join();
    CHECK_FALSE(ends.producer.claim(1));
}

TEST_CASE("a send that waits is interrupted") {
    Ends ends;
    ends.fill();
    Waiting waiting;
    waiting.interrupt = {[](void*) { return true; }, nullptr};
    CHECK(ends.producer.send(bytes("x"), 1, waiting) == Status::interrupted);
    CHECK(ends.producer.claim(1, waiting).status() == Status::interrupted);
}

TEST_CASE("what is claimed is committed whole, cut short, or given back") {
    Ends ends;
    {
        Claim claim = ends.producer.claim(100);
        REQUIRE(claim);
        CHECK(claim.status() == Status::ok);
        REQUIRE(claim.data().size() == 100);
        std::memset(claim.data().data(), 'a', 100);
        CHECK(claim.commit(7) == Status::ok);
        CHECK_FALSE(claim);
        CHECK(claim.data().empty());
        CHECK(claim.commit(7) == Status::no_claim);
    }
    const Message whole = ends.consumer.recv();
    CHECK(whole.text() == std::string(100, 'a'));
    CHECK(whole.type_id() == 7);
    {
        Claim claim = ends.producer.claim(100);
        std::memcpy(claim.data().data(), "short", 5);
        CHECK(claim.commit(8, 101) == Status::too_large);  // and is still there
        CHECK(claim.commit(8, 5) == Status::ok);
    }
    CHECK(ends.take() == "short");
    {
        const Claim claim = ends.producer.claim(100);
        REQUIRE(claim);
        CHECK(ends.producer.claim(1).status() == Status::claim_open);
    }
    CHECK(ends.take() == "-1");
    CHECK(ends.producer.try_send("next", 4, 0) == Status::ok);
    CHECK(ends.take() == "next");
}

TEST_CASE("a claim that moves is given back once") {
    Ends ends;
    Claim first = ends.producer.claim(10);
    {
        Claim second = std::move(first);
        CHECK(second);
        CHECK_FALSE(first);  // NOLINT(bugprone-use-after-move)
        CHECK(first.data().empty());
    }
    Claim third = ends.producer.claim(10);
    CHECK(third);
    CHECK(first.commit() == Status::no_claim);
    std::memcpy(third.data().data(), "0123456789", 10);
    CHECK(third.commit() == Status::ok);
}

TEST_CASE("a refused claim says why, and has no bytes") {
    Ends ends;
    Claim claim = ends.producer.claim(1 << 20);
    CHECK_FALSE(claim);
    CHECK(claim.status() == Status::too_large);
    CHECK(claim.data().empty());
    CHECK(claim.commit() == Status::too_large);
}

TEST_CASE("a host is unlocked for a large copy, and not for a small one") {
    Ends ends(1 << 20);
    Counting counting;
    Waiting waiting;
    waiting.host = counting.host();
    const std::string small(kLargeCopy - 1, 's'), large(kLargeCopy, 'l');
    CHECK(ends.producer.send(bytes(small), 1, waiting) == Status::ok);
    CHECK(counting.unlocks == 0);
    CHECK(ends.producer.send(bytes(large), 1, waiting) == Status::ok);
    CHECK(counting.unlocks == 1);
    CHECK(counting.locked);
    Message message = ends.consumer.recv();
    std::string copy(message.data().size(), '-');
    const auto copy_out = [&] {
        Inlet::copy_out(copy.data(),
                        {reinterpret_cast<const std::uint8_t*>(message.text().data()), 0, 0,
                         static_cast<std::uint32_t>(message.text().size()), 0},
                        counting.host());
    };
    copy_out();
    CHECK(copy == small);
    CHECK(counting.unlocks == 1);
    message = ends.consumer.recv();
    copy.resize(message.data().size());
    copy_out();
    CHECK(copy == large);
    CHECK(counting.unlocks == 2);
    CHECK(ends.producer.send(bytes(std::string(2 << 20, 'x')), 1, waiting) == Status::too_large);
    CHECK(counting.unlocks == 2);
}

TEST_CASE("a lock that ends the thread during a large copy leaves no claim open") {
    Ends ends(1 << 20);
    Waiting waiting;
    waiting.host = {[](void*) {}, [](void*) { throw std::runtime_error("the interpreter exits"); }, nullptr};
    CHECK_THROWS_AS(ends.producer.send(bytes(std::string(kLargeCopy, 'l')), 1, waiting), std::runtime_error);
    CHECK(ends.producer.try_send("next", 4, 0) == Status::ok);
    CHECK(ends.take() == "next");
}

// ---- batches -------------------------------------------------------------------------------------------------------------

namespace {

// As a consumer that sleeps has it. Its owner looks at how often it was told.
void fall_asleep(const Ends& ends) { ends.pair.header->consumer_parked.store(kParkedOnFutex); }
bool sleeps(const Ends& ends) { return ends.pair.header->consumer_parked.load() != kAwake; }

}  // namespace

TEST_CASE("a batch tells a consumer that sleeps once, at its end") {
    Ends ends(1 << 20);
    {
        Batch batch(ends.producer);
        CHECK(batch.try_send("", 0, 0) == Status::ok);
        fall_asleep(ends);
        CHECK(batch.send(bytes("one")) == Status::ok);
        Claim claim = batch.claim(3);
        std::memcpy(claim.data().data(), "two", 3);
        CHECK(claim.commit() == Status::ok);
        (void)batch.claim(100);  // given back
        Counting counting;
        Waiting waiting;
        waiting.host = counting.host();
        CHECK(batch.send(bytes(std::string(kLargeCopy, 'l')), 1, waiting) == Status::ok);
        CHECK(sleeps(ends));
        CHECK(ends.take().empty());  // one that polls sees each at once
    }
    CHECK_FALSE(sleeps(ends));
    CHECK(ends.producer.stats().wakes == 1);
    CHECK(ends.take() == "one");
    CHECK(ends.take() == "two");
    CHECK(ends.take() == std::string(kLargeCopy, 'l'));
    CHECK(ends.take() == "-1");
}

TEST_CASE("a batch that finds no room tells the consumer, however it tried") {
    Ends ends;
    Batch batch(ends.producer);
    while (batch.try_send("x", 1, 0) == Status::ok) {}
    fall_asleep(ends);
    std::uint8_t* payload = nullptr;
    SECTION("to send") { CHECK(batch.try_send("x", 1, 0) == Status::full); }
    SECTION("to claim") { CHECK(batch.try_claim(1, payload) == Status::full); }
    SECTION("for a while") { CHECK(batch.send(bytes("x"), 0, 1ms) == Status::full); }
    CHECK_FALSE(sleeps(ends));
}

TEST_CASE("a batch larger than the ring gets through to a consumer that sleeps between") {
    if (TACHYON_TEST_TSAN) return;
    const Folder folder;
    Child consumer([&] {
        const auto bus = Bus::connect(folder.file(), connect_options());
        int count = 0;
        for (const Message& message : bus->messages()) count += static_cast<int>(message.data().size());
        return count == 10'000 ? 0 : 1;
    });
    auto bus = Bus::listen(folder.file(), listen_options(4096));
    {
        Batch batch(*bus);
        for (int i = 0; i < 10'000; ++i) REQUIRE(batch.send(bytes("x"), 0, 30s) == Status::ok);
    }
    bus.reset();
    CHECK(consumer.wait() == 0);
}
