// How a side leaves, and how the other learns of it: close, abort, finish, and what has been read.
#include <stdexcept>
#include <thread>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

Status send_one(Bus& bus) { return bus.try_send("12345678", 8, 1); }

Status take_one(Bus& bus) {
    Frame frame{};
    const Status status = bus.try_peek(frame);
    return status == Status::ok ? bus.release_and_tell(frame) : status;
}

}  // namespace

TEST_CASE("an abort is told once all that was committed has been read, to either side") {
    BusPair reading = make_pair(4096), writing = make_pair(4096);
    REQUIRE(send_one(*reading.first) == Status::ok);
    reading.first->close(End::aborted);
    CHECK(reading.second->check() == Status::ok);  // there is something to read
    CHECK(take_one(*reading.second) == Status::ok);
    for (int i = 0; i < 2; ++i) CHECK(take_one(*reading.second) == Status::peer_aborted);
    CHECK(reading.second->check() == Status::peer_aborted);

    REQUIRE(send_one(*writing.first) == Status::ok);
    writing.second->close(End::aborted);
    for (int i = 0; i < 2; ++i) CHECK(send_one(*writing.first) == Status::peer_aborted);
    CHECK(writing.first->wait_writable(8, kNever) == Status::peer_aborted);
    CHECK(writing.first->wait_read(kNever) == Status::peer_aborted);
}

TEST_CASE("a side that never sent learns of an abort too") {
    BusPair pair = make_pair(4096);
    pair.second->close(End::aborted);
    CHECK(send_one(*pair.first) == Status::peer_aborted);
    Frame frame{};
    CHECK(pair.first->try_peek(frame) == Status::peer_aborted);
}

TEST_CASE(
    "a bus that an exception destroys is aborted, one that is made and destroyed while one is on its way is not") {
    BusPair pair = make_pair(4096), other = make_pair(4096);
    try {
        const std::unique_ptr<Bus> mine = std::move(pair.first);
        REQUIRE(send_one(*mine) == Status::ok);
        throw std::runtime_error("half way");
    } catch (const std::runtime_error&) {}
    CHECK(take_one(*pair.second) == Status::ok);
    CHECK(take_one(*pair.second) == Status::peer_aborted);

    struct Cleanup {
        BusPair& pair;
        std::unique_ptr<Bus>& reader;
        ~Cleanup() {
            BusPair inner = make_pair(4096);
            (void)send_one(*inner.first);
            inner.first.reset();
            reader = std::move(inner.second);
        }
    };
    std::unique_ptr<Bus> reader;
    try {
        const Cleanup cleanup{other, reader};
        throw std::runtime_error("on its way");
    } catch (const std::runtime_error&) {}
    REQUIRE(reader != nullptr);
    CHECK(take_one(*reader) == Status::ok);
    CHECK(take_one(*reader) == Status::peer_closed);
}

TEST_CASE("what a release_and_tell has freed is read at once, what a release has at the next look") {
    BusPair pair = make_pair(4096);
    CHECK(pair.first->check_read() == Status::ok);  // nothing sent
    REQUIRE(send_one(*pair.first) == Status::ok);
    CHECK(pair.first->check_read() == Status::full);
    CHECK(take_one(*pair.second) == Status::ok);
    CHECK(pair.first->check_read() == Status::ok);
    REQUIRE(send_one(*pair.first) == Status::ok);
    Frame frame{};
    REQUIRE(pair.second->try_peek(frame) == Status::ok);
    REQUIRE(pair.second->release(frame) == Status::ok);
    CHECK(pair.first->check_read() == Status::full);
    CHECK(pair.second->try_peek(frame) == Status::empty);
    CHECK(pair.first->check_read() == Status::ok);
    CHECK(pair.second->check_read() == Status::wrong_side);
    std::uint8_t* payload = nullptr;
    REQUIRE(pair.first->try_claim(8, payload) == Status::ok);
    CHECK(pair.first->check_read() == Status::claim_open);
    CHECK(pair.first->finish() == Status::claim_open);
}

TEST_CASE("wait_read sleeps until the last frame is released") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first) == Status::ok);
    CHECK(pair.first->wait_read(in_ms(20)) == Status::full);
    std::thread reader([&] {
        sleep_us(20'000);
        (void)take_one(*pair.second);
    });
    Status status = Status::full;
    for (const std::uint64_t end = in_ms(30'000); status == Status::full && now_ns() < end;)
        status = pair.first->wait_read(end);
    reader.join();
    CHECK(status == Status::ok);
}

TEST_CASE("finish ends the stream, and tells how the consumer left") {
    for (const End end : {End::closed, End::aborted}) {
        for (const bool all : {true, false}) {
            BusPair pair = make_pair(4096);
            CHECK(pair.first->check_left() != Status::ok);  // not before finish
            REQUIRE(send_one(*pair.first) == Status::ok);
            REQUIRE(send_one(*pair.first) == Status::ok);
            REQUIRE(pair.first->finish() == Status::ok);
            CHECK(pair.first->finish() == Status::ok);
            CHECK(send_one(*pair.first) == Status::closed);
            CHECK(pair.first->check_left() == Status::full);
            CHECK(take_one(*pair.second) == Status::ok);
            if (all) {
                CHECK(take_one(*pair.second) == Status::ok);
                CHECK(take_one(*pair.second) == Status::peer_closed);
            }
            pair.second->close(end);
            const Status expected = end == End::aborted ? Status::peer_aborted : all ? Status::ok : Status::peer_closed;
            CHECK(pair.first->wait_left(in_ms(30'000)) == expected);
        }
    }
}

TEST_CASE("an abort after finish is too late to be news") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first) == Status::ok);
    REQUIRE(pair.first->finish() == Status::ok);
    pair.first->close(End::aborted);
    CHECK(take_one(*pair.second) == Status::ok);
    CHECK(take_one(*pair.second) == Status::peer_closed);
}

TEST_CASE("finish wakes a consumer that sleeps") {
    int woken = 0;
    for (int attempt = 0; attempt < 50 && woken == 0;
         ++attempt) {  // a thread that comes too late for the slice proves nothing
        BusPair pair = make_pair(4096);
        REQUIRE(send_one(*pair.first) == Status::ok);
        REQUIRE(take_one(*pair.second) == Status::ok);
        std::thread finishing([&] {
            const std::uint64_t end = in_ms(30'000);
            while (pair.second->stats().parks == 0 && now_ns() < end) sleep_us(100);
            sleep_us(1'000);
            (void)pair.first->finish();
        });
        woken += pair.second->wait_readable(in_ms(40)) == Status::ok ? 1 : 0;
        finishing.join();
        CHECK(take_one(*pair.second) == Status::peer_closed);
    }
    CHECK(woken == 1);
}

TEST_CASE("an impossible word for how the peer left is no clean end") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first) == Status::ok);
    pair.first->close(static_cast<End>(77));
    CHECK(take_one(*pair.second) == Status::ok);
    CHECK(take_one(*pair.second) == Status::peer_aborted);
}
