// Several frames held at once, and released in any order: Bus::release, expect_held, prepare_wait and wait_beside.
#include <algorithm>
#include <deque>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"
#include "tachyon/bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

Status send_one(Bus& bus, std::uint64_t sequence, std::uint64_t size = 40) {
    std::vector<std::uint8_t> bytes(size + 8);
    write_message(bytes.data(), size, size, sequence);
    return bus.try_send(bytes.data(), size, static_cast<std::uint32_t>(sequence), sequence);
}

std::vector<Frame> hold(Bus& bus, std::uint64_t first, std::uint64_t count) {
    std::vector<Frame> frames(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        REQUIRE(bus.try_peek(frames[i]) == Status::ok);
        REQUIRE(check_message(frames[i], first + i) == nullptr);
    }
    return frames;
}

std::uint64_t room(Bus& bus) {  // lines that can be sent to now
    std::uint64_t lines = 0;
    while (send_one(bus, 1'000'000 + lines) == Status::ok) ++lines;
    return lines;
}

}  // namespace

TEST_CASE("frames are released in every order, and the ring frees in order behind the oldest") {
    std::vector<std::size_t> order(5);
    std::iota(order.begin(), order.end(), 0u);
    do {
        BusPair pair = make_pair(512);
        for (std::uint64_t i = 0; i < 5; ++i) REQUIRE(send_one(*pair.first, i) == Status::ok);
        const std::vector<Frame> frames = hold(*pair.second, 0, 5);
        std::vector<bool> released(5);
        for (const std::size_t index : order) {
            REQUIRE(pair.second->release(frames[index]) == Status::ok);
            released[index] = true;
            const auto oldest = std::ranges::find(released, false) - released.begin();
            REQUIRE(pair.second->stats().position == kLine * static_cast<std::uint64_t>(oldest));
            REQUIRE(pair.second->release(frames[index]) == Status::no_claim);  // once
        }
        pair.second->hand_back();
        REQUIRE(room(*pair.first) == 8);
    } while (std::ranges::next_permutation(order).found);
}

TEST_CASE(
    "what was released before its turn is let go of with its whole length, across the end and padding, bulk or not") {
    for (const std::uint64_t size : {40u, 100u, 200u, 300u, 5000u, 9000u}) {
        BusPair pair = make_pair(size < 1000 ? 1024 : 1 << 15);
        std::uint64_t sent = 0, taken = 0;
        for (int lap = 0; lap < 40; ++lap) {
            std::vector<Frame> frames;
            while (send_one(*pair.first, sent, size) == Status::ok) ++sent;
            while (taken < sent) {
                Frame frame{};
                if (pair.second->try_peek(frame) != Status::ok) break;
                REQUIRE(check_message(frame, taken++) == nullptr);
                frames.push_back(frame);
            }
            for (auto each = frames.rbegin(); each != frames.rend(); ++each)
                REQUIRE(pair.second->release(*each) == Status::ok);
            Frame none{};
            REQUIRE(pair.second->try_peek(none) == Status::empty);
            REQUIRE(pair.second->stats().messages == sent);
        }
        REQUIRE(sent > 100);
    }
}

TEST_CASE("what is not held, or is mixed up, is not released") {
    BusPair pair = make_pair(512);
    for (std::uint64_t i = 0; i < 4; ++i) REQUIRE(send_one(*pair.first, i, 100) == Status::ok);
    const std::vector<Frame> frames = hold(*pair.second, 0, 3);
    Frame beyond = frames[2];
    beyond.position += 2 * kLine;  // the fourth, which nobody has peeked
    CHECK(pair.second->release(beyond) == Status::no_claim);
    CHECK(pair.second->release(frames[1]) == Status::ok);
    Frame within = frames[1];
    within.position += kLine;
    CHECK(pair.second->release(within) == Status::no_claim);
    CHECK(pair.second->release(frames[0]) == Status::ok);
    CHECK(pair.second->release(frames[0]) == Status::no_claim);
    CHECK(pair.second->release(frames[2]) == Status::ok);
    CHECK(pair.second->stats().position == 6 * kLine);
}

TEST_CASE("room to remember is made beforehand, and grows with what is held") {
    BusPair pair = make_pair(1 << 16);
    CHECK(pair.second->expect_held(1000));
    for (std::uint64_t i = 0; i < 1000; ++i) REQUIRE(send_one(*pair.first, i) == Status::ok);
    const std::vector<Frame> frames = hold(*pair.second, 0, 1000);
    for (std::size_t i = 1; i < 1000; i += 2) REQUIRE(pair.second->release(frames[i]) == Status::ok);
    for (std::size_t i = 998; i > 0; i -= 2) REQUIRE(pair.second->release(frames[i]) == Status::ok);
    CHECK(pair.second->stats().position == 0);
    CHECK(pair.second->release(frames[0]) == Status::ok);
    CHECK(pair.second->stats().position == 1000 * kLine);
}

// As under Python's GIL: a lock keeps whoever releases out while the receiver does not wait.
TEST_CASE("another thread releases while this one waits with the whole ring in hand") {
    constexpr std::uint64_t kMessages = 20'000;
    BusPair pair = make_pair(512);
    std::mutex lock, handed_lock;
    std::deque<Frame> handed;
    std::atomic<bool> done = false;
    const std::uint64_t end = in_ms(120'000);
    std::thread producer([&] {
        for (std::uint64_t i = 0; i < kMessages && now_ns() < end;) {
            if (send_one(*pair.first, i, i % 90) == Status::ok)
                ++i;
            else
                (void)pair.first->wait_writable(90, end);
        }
    });
    std::thread releaser([&] {
        Random random(7);
        std::vector<Frame> mine;
        std::uint64_t released = 0;
        while (released < kMessages && now_ns() < end) {
            {
                const std::lock_guard guard(handed_lock);
                mine.insert(mine.end(), handed.begin(), handed.end());
                handed.clear();
            }
            if (mine.empty()) continue;
            const std::size_t index = random.below(mine.size());
            {
                const std::lock_guard guard(lock);
                if (pair.second->release(mine[index]) != Status::ok) break;
                pair.second->hand_back();
            }
            mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(index));
            ++released;
        }
        done = released == kMessages;
    });
    std::uint64_t taken = 0;
    std::unique_lock guard(lock);
    while (taken < kMessages && now_ns() < end) {
        Frame frame{};
        const Status status = pair.second->try_peek(frame);
        if (status == Status::ok) {
            if (check_message(frame, taken) != nullptr || !pair.second->expect_held(16)) break;
            ++taken;
            const std::lock_guard handing(handed_lock);
            handed.push_back(frame);
            continue;
        }
        pair.second->prepare_wait();
        guard.unlock();
        const Status waited = pair.second->wait_beside(end);
        guard.lock();
        if (waited != Status::ok && waited != Status::empty) break;
    }
    guard.unlock();
    producer.join();
    releaser.join();
    CHECK(taken == kMessages);
    CHECK(done);
}

TEST_CASE("a wait that began with the whole ring in hand sees the message that a release makes room for") {
    int seen = 0;
    for (int attempt = 0; attempt < 50 && seen == 0;
         ++attempt) {  // a thread that comes too late for the slice proves nothing
        BusPair pair = make_pair(256);
        pair.second->set_polling_mode(true);  // nobody is woken: it has to see it
        for (std::uint64_t i = 0; i < 4; ++i) REQUIRE(send_one(*pair.first, i) == Status::ok);
        const std::vector<Frame> frames = hold(*pair.second, 0, 4);
        Frame frame{};
        REQUIRE(pair.second->try_peek(frame) == Status::empty);
        pair.second->prepare_wait();
        std::thread releaser([&] {
            sleep_us(2'000);
            (void)pair.second->release_and_tell(frames[0]);
            (void)send_one(*pair.first, 4);
        });
        seen += pair.second->wait_beside(in_ms(40)) == Status::ok ? 1 : 0;
        releaser.join();
        REQUIRE(pair.second->try_peek(frame) == Status::ok);
    }
    CHECK(seen == 1);
}
