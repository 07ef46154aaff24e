// A producer that waits for room is woken when there is enough of it, and not for every message.
#include <atomic>
#include <thread>
#include <vector>

#include "both_ends.hpp"
#include "catch.hpp"
#include "half_bus.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a producer that dozes can see every release, and is woken for an eighth of the ring") {
    Both both(4096);
    for (std::uint64_t i = 0; i < 64; ++i) REQUIRE(both.send(0, i));
    auto& parked = both.ring.header().producer_parked;
    parked.store(kDozing);
    for (std::uint64_t i = 0; i < 7; ++i) {
        REQUIRE(both.take(0, i) == "ok");
        CHECK(both.published() == (i + 1) * 64);
        CHECK(parked.load() == kDozing);
    }
    REQUIRE(both.take(0, 7) == "ok");
    CHECK(parked.load() == kAwake);
    CHECK(both.consumer.wakes() == 1);
}

TEST_CASE("a producer that dozes is woken by a consumer that finds nothing more") {
    Both both(4096);
    for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(both.send(0, i));
    auto& parked = both.ring.header().producer_parked;
    parked.store(kDozing);
    for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(both.take(0, i) == "ok");
    CHECK(parked.load() == kDozing);
    CHECK(both.peek() == Status::empty);
    CHECK(parked.load() == kAwake);
}

TEST_CASE("a doze ends by a wake, or becomes a park after a millisecond") {
    for (const Barrier barrier : kBarriers) {
        std::atomic<std::uint32_t> parked{0};
        std::vector<std::uint32_t> seen;
        const auto nothing = [&] {
            seen.push_back(parked.load());
            return false;
        };
        CHECK(doze_and_park(parked, barrier, 20 * kMillisecond, nothing) == Parked::slice_over);
        REQUIRE(seen.size() >= 3);
        CHECK(seen.front() == kDozing);
        CHECK(seen[1] == kAwake);  // between the two
        CHECK(seen[2] == kParkedOnFutex);
        CHECK(parked.load() == kAwake);

        const auto wake_it = [&] {
            REQUIRE(wake_if_parked(parked, barrier));
            return false;
        };
        CHECK(doze_and_park(parked, barrier, 3'000 * kMillisecond, wake_it) == Parked::woken);

        int looks = 0;
        CHECK(doze_and_park(parked, barrier, 3'000 * kMillisecond, [&] { return ++looks > 1; }) == Parked::found_late);
        CHECK(looks == 2);

        const std::uint64_t before = now_ns();
        CHECK(doze_and_park(parked, barrier, kStoreDelay / 2, nothing) == Parked::slice_over);
        CHECK(now_ns() - before >= kStoreDelay / 2);
    }
}

TEST_CASE("a consumer that takes a message now and then wakes a full producer for a few of them only") {
    BusPair pair = make_pair(64 << 10);
    std::atomic<bool> over{false};
    std::thread producer([&] {
        std::uint64_t sequence = 0;
        while (!over) {
            if (send_one(*pair.first, sequence) == Status::ok) {
                ++sequence;
            } else {
                (void)pair.first->wait_writable(1, in_ms(100));
            }
        }
    });
    constexpr std::uint64_t kMessages = 8000;
    std::uint64_t taken = 0;
    for (const std::uint64_t deadline = in_ms(60'000); taken < kMessages && now_ns() < deadline;) {
        for (const std::uint64_t until = now_ns() + 5'000; now_ns() < until;) cpu_relax();
        if (take_one(*pair.second, taken) == Status::ok) ++taken;
    }
    over = true;
    pair.first->request_close();
    producer.join();
    CHECK(taken == kMessages);
    CHECK(pair.second->stats().wakes < kMessages / 8);  // half of them if it never dozes; an eighth of the ring is 128
}
