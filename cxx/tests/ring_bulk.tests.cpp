// Bulk frames: let go of by their first word alone, and what that asks of the producer. Small rings with a small threshold.
#include <sys/mman.h>

#include <atomic>
#include <csignal>
#include <vector>

#include "both_ends.hpp"
#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"
#include "tachyon/ring/ring.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kFour = 4 * kLine;  // the threshold of most tests here

constexpr std::uint64_t filling(std::uint64_t lines) {
    return lines * kLine - kFrameHeader;
}  // payload of so many lines

std::uint64_t words_that_are_not_0(const Both& both, std::uint64_t position, std::uint64_t lines) {
    std::uint64_t count = 0;
    for (std::uint64_t i = 0; i < lines; ++i) count += both.ring.word(position + i * kLine).load() != 0;
    return count;
}

// One-line messages through the whole ring: each finds 0 behind it, and arrives alone.
void pass_a_lap(Both& both, std::uint64_t sequence) {
    for (std::uint64_t i = 0; i < both.ring.capacity() / kLine; ++i) {
        REQUIRE(both.send(40, sequence + i));
        REQUIRE(both.ring.word(both.producer.write_position()).load() == 0);
        REQUIRE(both.take(40, sequence + i) == "ok");
        REQUIRE(both.peek() == Status::empty);
    }
}

}  // namespace

TEST_CASE("of a bulk frame only the first word is cleared, of a smaller one the first word of every line") {
    Both both(1024, Barrier::locked, kFour);
    REQUIRE(both.send(filling(4), 1));
    REQUIRE(both.send(filling(3), 2));
    REQUIRE(both.take(filling(4), 1) == "ok");
    CHECK(both.ring.word(0).load() == 0);
    CHECK(words_that_are_not_0(both, kLine, 3) == 3);  // as they were: nothing was written
    REQUIRE(both.take(filling(3), 2) == "ok");
    CHECK(words_that_are_not_0(both, kFour, 3) == 0);
    CHECK(both.unknown_dirt() == 0);
}

TEST_CASE("what a bulk frame leaves is not taken for a message in the next lap, at any offset") {
    for (std::uint64_t offset = 0; offset < 1024; offset += kLine) {
        for (const std::uint64_t lines : {4u, 5u, 9u, 16u}) {
            Both both(1024, Barrier::locked, kFour);
            both.advance_to(offset);
            for (int tries = 0; !both.send(filling(lines), 1); ++tries) {
                REQUIRE(tries < 2);
                REQUIRE(both.peek() == Status::empty);
            }
            REQUIRE(both.take(filling(lines), 1) == "ok");
            REQUIRE(both.unknown_dirt() == 0);
            pass_a_lap(both, 100);
            pass_a_lap(both, 200);
            REQUIRE(both.ring.dirty_lines() == 0);  // which ends what was dirty
            REQUIRE(both.producer.dirty_from() >= both.producer.dirty_to());
        }
    }
}

TEST_CASE("frames of every length follow a bulk frame into its lines") {
    for (std::uint64_t lines = 1; lines <= 16; ++lines) {
        Both both(1024, Barrier::locked, kFour);
        REQUIRE(both.send(filling(16), 1));
        REQUIRE(both.take(filling(16), 1) == "ok");
        REQUIRE(both.peek() == Status::empty);
        for (std::uint64_t sequence = 2; sequence < 80; ++sequence) {
            for (int tries = 0; !both.send(filling(lines), sequence); ++tries) {
                REQUIRE(tries < 3);
                REQUIRE(both.peek() == Status::empty);
            }
            REQUIRE(both.unknown_dirt() == 0);
            REQUIRE(both.take(filling(lines), sequence) == "ok");
            REQUIRE(both.peek() == Status::empty);
        }
    }
}

TEST_CASE("what was dirty is forgotten once it has been passed, also in one step") {
    Both both(1024, Barrier::locked, kFour);
    for (std::uint64_t lap = 1; lap < 4; ++lap) {
        REQUIRE(both.send(filling(4), 1));
        REQUIRE(both.take(filling(4), 1) == "ok");
        CHECK(both.producer.dirty_from() == lap * 1024 + kLine);
        CHECK(both.producer.dirty_to() == lap * 1024 + kFour);
        for (int i = 0; i < 4; ++i) {
            REQUIRE(both.send(filling(3), 2));
            REQUIRE(both.take(filling(3), 2) == "ok");
        }
        REQUIRE(both.peek() == Status::empty);
    }
}

TEST_CASE("what padding skips stays dirty for another lap") {
    Both both(4096, Barrier::locked, kFour);
    both.advance_to(2048);
    REQUIRE(both.send(filling(32), 1));  // 2048 … 4096
    REQUIRE(both.take(filling(32), 1) == "ok");
    both.advance_to(2112);
    REQUIRE(both.send(filling(32), 2));  // padding 2112 … 4096, then 0 … 2048
    REQUIRE(both.ring.word(2112).load() == kPadding);
    REQUIRE(both.take(filling(32), 2) == "ok");
    CHECK(words_that_are_not_0(both, 3584, 8) == 8);
    CHECK(both.unknown_dirt() == 0);
    pass_a_lap(both, 100);
    pass_a_lap(both, 200);
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("lone padding over dirty lines ends where the next header reads 0") {
    Both both(4096, Barrier::locked, kFour);
    REQUIRE(both.send(filling(64), 1));
    REQUIRE(both.take(filling(64), 1) == "ok");
    REQUIRE(both.peek() == Status::empty);
    both.advance_to(192);
    REQUIRE(both.producer.try_claim(filling(64)) == nullptr);
    REQUIRE(both.ring.word(192).load() == kPadding);
    REQUIRE(both.ring.word(0).load() == 0);
    CHECK(both.unknown_dirt() == 0);
    REQUIRE(both.peek() == Status::empty);
    CHECK(both.unknown_dirt() == 0);
    pass_a_lap(both, 100);
    pass_a_lap(both, 200);
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("a large claim that is given up, or cut down, is remembered, and a small one cleared at once") {
    for (const bool abort : {true, false}) {
        for (const std::uint64_t lines : {3u, 5u, 6u, 16u}) {
            Both both(1024, Barrier::locked, kFour);
            std::uint8_t* const payload = both.producer.try_claim(filling(lines));
            REQUIRE(payload != nullptr);
            write_message(payload, filling(lines), filling(lines), 3);
            if (abort) {
                both.producer.abort();
            } else {
                write_message(payload, 20, filling(lines), 3);
                both.producer.commit(20, 3, 3);
                REQUIRE(both.take(20, 3) == "ok");
            }
            if (abort) CHECK((both.ring.dirty_lines() == 0) == (lines < 5));
            CHECK(both.unknown_dirt() == 0);
            CHECK(both.peek() == Status::empty);
            CHECK_FALSE(both.consumer.has_frame());
            pass_a_lap(both, 100);
            CHECK(both.ring.dirty_lines() == 0);
        }
    }
}

TEST_CASE("a header that is not free is left to the consumer, and not cleared by the producer") {
    Both both(512, Barrier::locked, kFour);
    REQUIRE(both.send(filling(4), 1));
    REQUIRE(both.take(filling(4), 1) == "ok");
    REQUIRE(both.peek() == Status::empty);
    REQUIRE(both.send(10, 2));  // 256 … 320
    REQUIRE(both.peek() == Status::ok);
    REQUIRE(both.send(filling(3), 3));  // 320 … 512
    REQUIRE(both.send(filling(4), 4));  // 0 … 256: behind it lies what is held
    CHECK(both.ring.word(256).load() == commit_word(10, 2));
    CHECK(check_message(both.last, 2) == nullptr);
    both.consumer.release(both.last);
    CHECK(both.take(filling(3), 3) == "ok");
    CHECK(both.take(filling(4), 4) == "ok");
    CHECK(both.peek() == Status::empty);
    pass_a_lap(both, 100);
    pass_a_lap(both, 200);
    CHECK(both.ring.dirty_lines() == 0);
}

TEST_CASE("no more is cleared ahead than is free") {
    Both both(4096, Barrier::locked, kFour);
    for (int lap = 0; lap < 2; ++lap) {
        REQUIRE(both.send(filling(32), 1));
        REQUIRE(both.take(filling(32), 1) == "ok");
    }
    REQUIRE(both.peek() == Status::empty);
    std::vector<Frame> held;
    std::uint64_t sequence = 10;
    while (both.send(40, sequence)) {  // the ring full of one-line messages, all held
        REQUIRE(both.peek() == Status::ok);
        held.push_back(both.last);
        ++sequence;
        for (std::size_t i = 0; i < held.size(); ++i) REQUIRE(check_message(held[i], 10 + i) == nullptr);
    }
    CHECK(held.size() == 64);
    for (std::size_t i = 0; i < held.size(); ++i) {
        CHECK(check_message(held[i], 10 + i) == nullptr);
        both.consumer.release(held[i]);
    }
    CHECK(both.peek() == Status::empty);
    CHECK(both.unknown_dirt() == 0);
}

TEST_CASE("frames are released early, bulk or not, across padding, and freed in one go") {
    Both both(1024, Barrier::locked, kFour);
    both.advance_to(512);
    for (int lap = 0; lap < 20; ++lap) {
        const std::uint64_t lines = 2 + lap % 4;
        REQUIRE(both.send(1, 1));
        std::uint64_t sent = 1;
        while (sent < 4 && both.send(filling(lines), sent + 1)) ++sent;
        std::vector<Frame> held;
        while (both.peek() == Status::ok) held.push_back(both.last);
        REQUIRE(held.size() == sent);
        for (std::size_t i = sent - 1; i > 0; --i) {
            both.consumer.release_early(held[i]);
            REQUIRE(both.ring.word(held[i].position).load() == 0);
        }
        REQUIRE(check_message(held[0], 1) == nullptr);
        both.consumer.release(held[0]);
        if (sent > 1) {
            const std::uint64_t end = held.back().position + frame_size(held.back().size);
            both.consumer.release_run(end, sent - 1);
        }
        REQUIRE(both.consumer.held() == 0);
        REQUIRE(both.peek() == Status::empty);
        REQUIRE(both.published() == both.producer.write_position());
        REQUIRE(both.unknown_dirt() == 0);
    }
}

TEST_CASE("the threshold is the same for every capacity, and a frame of it is bulk") {
    Both both(64 * 1024);
    REQUIRE(both.send(kBulk - kFrameHeader, 1));
    REQUIRE(both.send(kBulk - kFrameHeader - kLine, 2));
    REQUIRE(both.take(kBulk - kFrameHeader, 1) == "ok");
    REQUIRE(both.take(kBulk - kFrameHeader - kLine, 2) == "ok");
    CHECK(words_that_are_not_0(both, 0, kBulk / kLine) == kBulk / kLine - 1);
    CHECK(words_that_are_not_0(both, kBulk, kBulk / kLine) == 0);
}

namespace {

// The first write to a page, caught: what a reader on another core might have seen at that moment.
struct Caught {
    std::uint8_t* page;
    const std::atomic<std::uint64_t>* word;
    std::uint64_t seen;
    int count;
} caught;

void catch_write(int) {
    caught.seen = caught.word->load();
    ++caught.count;
    ::mprotect(caught.page, 4096, PROT_READ | PROT_WRITE);
}

}  // namespace

TEST_CASE("the next header is cleared before the frame in front of it can be seen") {
    Both both(16384, Barrier::locked, kFour);
    const std::uint64_t last = 4096 - kLine;  // of a page
    both.advance_to(last);
    REQUIRE(both.send(filling(16), 1));
    REQUIRE(both.take(filling(16), 1) == "ok");
    REQUIRE(both.peek() == Status::empty);
    both.advance_to(last);
    REQUIRE(both.ring.word(4096).load() != 0);
    caught = {both.ring.data() + 4096, &both.ring.word(last), ~std::uint64_t{0}, 0};
    struct sigaction action{}, segv{}, bus{};
    action.sa_handler = catch_write;
    REQUIRE(::sigaction(SIGSEGV, &action, &segv) == 0);
    REQUIRE(::sigaction(SIGBUS, &action, &bus) == 0);
    REQUIRE(::mprotect(caught.page, 4096, PROT_READ) == 0);
    const bool sent = both.producer.try_send("x", 1, 2);
    ::sigaction(SIGSEGV, &segv, nullptr);
    ::sigaction(SIGBUS, &bus, nullptr);
    CHECK(sent);
    CHECK(caught.count == 1);
    CHECK(caught.seen == 0);
    CHECK(both.ring.word(last).load() != 0);
    CHECK(both.ring.word(4096).load() == 0);
}

TEST_CASE("a payload arrives whole whichever way it is copied") {
    Both both(1 << 20);
    std::uint64_t sequence = 0;
    for (const std::uint64_t size :
         {1024, 4096, 65535, 65536, 65537, 65583, 65584, 65585, 131119, 131120, 131121, 300000}) {
        INFO(size);
        REQUIRE(both.send(size, sequence));
        CHECK(both.take(size, sequence) == "ok");
        ++sequence;
    }
}
