#include "tachyon/host/bus_handle.hpp"

#include <pthread.h>

#include <array>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "catch.hpp"
#include "handles.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

// ---- free code -----------------------------------------------------------------------------------------------------------

TEST_CASE("free code sends and receives") {
    const Handles ends;
    CHECK(ends.producer->capacity() == 4096);
    CHECK(ends.producer->path() == "here");
    std::uint8_t* payload = nullptr;
    REQUIRE(ends.producer->try_claim(10, payload) == Status::ok);
    std::memcpy(payload, "claimed", 7);
    CHECK(ends.producer->try_send("x", 1, 0) == Status::claim_open);
    CHECK(ends.producer->commit(11, 1) == Status::too_large);
    CHECK(ends.producer->gate().held() == 1);
    CHECK(ends.producer->commit(7, 1) == Status::ok);
    CHECK(ends.producer->gate().held() == 0);
    REQUIRE(ends.producer->claim(10, payload, 1s) == Status::ok);
    CHECK(ends.producer->abort() == Status::ok);
    CHECK(ends.producer->abort() == Status::no_claim);
    CHECK(ends.producer->gate().held() == 0);
    ends.send("tried");
    CHECK(ends.producer->send("sent", 4, 2, 1s) == Status::ok);
    std::array<Frame, 8> frames{};
    REQUIRE(ends.consumer->try_peek(frames[0]) == Status::ok);
    REQUIRE(ends.consumer->peek(frames[1], 1s) == Status::ok);
    CHECK(text_of(frames[0]) == "claimed");
    CHECK(text_of(frames[1]) == "tried");
    CHECK(ends.consumer->release(frames[1]) == Status::no_claim);  // not the oldest
    CHECK(ends.consumer->release(frames[0]) == Status::ok);
    CHECK(ends.consumer->release(frames[0]) == Status::no_claim);  // once
    CHECK(ends.consumer->gate().held() == 1);
    CHECK(ends.consumer->release(frames[1]) == Status::ok);
    std::size_t count = 7;
    REQUIRE(ends.consumer->try_drain(frames.data(), 8, count) == Status::ok);
    CHECK(count == 1);
    CHECK(text_of(frames[0]) == "sent");
    CHECK(ends.consumer->gate().held() == 1);
    CHECK(ends.consumer->release_all(frames.data(), 1) == Status::ok);
    CHECK(ends.consumer->gate().held() == 0);
    CHECK(ends.consumer->try_drain(frames.data(), 8, count) == Status::empty);
    CHECK(count == 0);
    CHECK(ends.consumer->drain(frames.data(), 0, count, 1s) == Status::ok);
    CHECK(ends.consumer->check() == Status::ok);
    CHECK(ends.consumer->wait_readable(0) == Status::empty);
    CHECK(ends.producer->wait_writable(100, 0) == Status::ok);
    CHECK(ends.consumer->wait_writable(100, 0) == Status::wrong_side);
}

TEST_CASE("a drain takes so many at most, and no message is lost or held twice") {
    const Handles ends;
    for (const char* text : {"a", "b", "c"}) ends.send(text);
    std::array<Frame, 3> frames{};
    std::size_t count = 0;
    REQUIRE(ends.consumer->drain(frames.data(), 2, count, 1s) == Status::ok);
    CHECK(count == 2);
    CHECK(ends.consumer->gate().held() == 2);
    std::swap(frames[0], frames[1]);
    CHECK(ends.consumer->release_all(frames.data(), 2) == Status::no_claim);
    CHECK(ends.consumer->gate().held() == 2);
    std::swap(frames[0], frames[1]);
    REQUIRE(ends.consumer->try_drain(&frames[2], 1, count) == Status::ok);
    CHECK(text_of(frames[2]) == "c");
    CHECK(ends.consumer->release_all(frames.data(), 3) == Status::ok);
    CHECK(ends.consumer->gate().held() == 0);
}

TEST_CASE("free code is refused while another is inside, and while a guard is open") {
    const Handles ends;
    ends.send("x");
    SECTION("inside") {
        REQUIRE(ends.consumer->enter());
        CHECK_FALSE(ends.consumer->enter());
        CHECK(all_are(each_method(*ends.consumer), Status::busy));
        ends.consumer->leave();
    }
    SECTION("a guard") {
        ends.consumer->open_guard();
        CHECK(all_are(each_method(*ends.consumer), Status::claim_open));
        CHECK(ends.consumer->enter());
        ends.consumer->leave();
        ends.consumer->end_guard();
    }
    Frame frame{};
    REQUIRE(ends.consumer->try_peek(frame) == Status::ok);
    CHECK_FALSE(ends.consumer->enter());
    CHECK(ends.consumer->why_not_entered() == Status::busy);
    CHECK(ends.consumer->release(frame) == Status::ok);
    CHECK(ends.consumer->enter());
}

TEST_CASE("what is refused because another is inside stays held, and is given back later") {
    const Handles ends;
    ends.send("x");
    Frame frame{};
    std::uint8_t* payload = nullptr;
    REQUIRE(ends.consumer->try_peek(frame) == Status::ok);
    REQUIRE(ends.producer->try_claim(1, payload) == Status::ok);
    for (BusHandle* handle : {ends.producer.get(), ends.consumer.get()}) {
        REQUIRE(handle->gate().enter_free() == Gate::Entry::inside);
        CHECK(all_are(each_method(*handle), Status::busy));
        CHECK(handle->gate().held() == 1);
        CHECK_FALSE(handle->gate().leave());
    }
    CHECK(ends.consumer->release(frame) == Status::ok);
    CHECK(ends.producer->commit(1, 0) == Status::ok);
}

TEST_CASE("a ring is lent to one thread, which may wait beside it") {
    const Handles ends;
    Producer* producer = nullptr;
    Consumer* consumer = nullptr;
    CHECK(ends.producer->take_back() == Status::no_claim);
    ends.send("first");
    ends.producer->open_guard();
    CHECK(ends.producer->lend(producer) == Status::claim_open);
    ends.producer->end_guard();
    CHECK(ends.producer->lend(consumer) == Status::wrong_side);
    REQUIRE(ends.producer->lend(producer) == Status::ok);
    REQUIRE(ends.consumer->lend(consumer) == Status::ok);
    CHECK(ends.producer->lend(producer) == Status::busy);
    CHECK(producer->try_send("lent", 4, 0));
    CHECK(ends.producer->check() == Status::ok);
    CHECK(ends.producer->wait_writable(1, 0) == Status::ok);
    CHECK(ends.consumer->wait_readable(0) == Status::ok);
    CHECK(ends.producer->try_send("x", 1, 0) == Status::busy);
    std::array<Status, 3> elsewhere{};
    std::thread([&] {
        elsewhere = {ends.producer->check(), ends.producer->wait_writable(1, 0), ends.consumer->wait_readable(0)};
    }).join();
    for (const Status status : elsewhere) CHECK(status == Status::busy);
    REQUIRE(producer->try_claim(1) != nullptr);  // given back too
    CHECK(ends.producer->take_back() == Status::ok);
    CHECK(ends.producer->take_back() == Status::no_claim);
    ends.send("x");
    ends.consumer->close(End::closed);
    CHECK(ends.consumer->bus() != nullptr);
    CHECK(ends.consumer->check() == Status::closed);
    CHECK(ends.consumer->wait_readable(kNever) == Status::closed);
    CHECK(ends.consumer->take_back() == Status::ok);
    CHECK(ends.consumer->bus() == nullptr);
    CHECK(ends.consumer->take_back() == Status::no_claim);
}

TEST_CASE("a wait of free code that is thrown out of leaves the handle as it should be") {
    const Handles ends;
    while (ends.producer->try_send("x", 1, 0) == Status::ok) {}
    bool closes = false;
    SECTION("open") {}
    SECTION("closed meanwhile") { closes = true; }
    const std::function<void()> asked = [&] {
        if (closes) ends.producer->close(End::closed);
        throw std::runtime_error("the interpreter exits");
    };
    Waiting waiting;
    waiting.interrupt = {[](void* context) -> bool {
                             (*static_cast<const std::function<void()>*>(context))();
                             return true;
                         },
                         const_cast<std::function<void()>*>(&asked)};
    CHECK_THROWS_AS(ends.producer->send("x", 1, 0, waiting), std::runtime_error);
    CHECK(ends.producer->gate().is_inside(Gate::User::nobody));
    CHECK(ends.producer->gate().is_closed() == closes);
    CHECK(ends.producer->try_send("x", 1, 0) == (closes ? Status::closed : Status::full));
}

#if !TACHYON_TEST_TSAN
TEST_CASE("a thread that ends in the middle of a wait is inside no longer") {
    const Handles ends;
    ends.send("x");
    Frame frame{};
    REQUIRE(ends.consumer->try_peek(frame) == Status::ok);
    REQUIRE(ends.consumer->release(frame) == Status::ok);
    Waiting waiting;
    waiting.interrupt = {[](void*) -> bool { ::pthread_exit(nullptr); }, nullptr};
    std::thread([&] { (void)ends.consumer->peek(frame, waiting); }).join();
    CHECK(ends.consumer->gate().is_inside(Gate::User::nobody));
    CHECK(ends.consumer->try_peek(frame) == Status::empty);
}
#endif
