#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

#include "catch.hpp"
#include "handles.hpp"
#include "support.hpp"
#include "tachyon/host/bus_handle.hpp"

using namespace tachyon;
using namespace tachyon::test;

// ---- closing -------------------------------------------------------------------------------------------------------------

TEST_CASE("close lets the memory go at once where nobody needs it, and everything says closed") {
    const Held before;
    Handles ends;
    ends.consumer->close(End::closed);
    CHECK(ends.consumer->bus() == nullptr);
    CHECK(ends.consumer->closing());
    CHECK(ends.consumer->state() == Status::closed);
    CHECK(all_are(each_method(*ends.consumer), Status::closed));
    CHECK_FALSE(ends.consumer->enter());
    CHECK(ends.consumer->why_not_entered() == Status::closed);
    ends.consumer->close(End::aborted);
    CHECK(ends.producer->try_send("x", 1, 0) == Status::peer_closed);
    ends.producer->close(End::closed);
    CHECK(Held() == before);
}

TEST_CASE("the first close counts") {
    const Handles ends;
    ends.send("x");
    ends.producer->open_guard();
    ends.producer->close(End::aborted);
    ends.producer->close(End::closed);
    ends.producer->end_guard();
    CHECK(ends.producer->bus() == nullptr);
    Frame frame{};
    REQUIRE(ends.consumer->try_peek(frame) == Status::ok);
    REQUIRE(ends.consumer->release(frame) == Status::ok);
    CHECK(ends.consumer->try_peek(frame) == Status::peer_aborted);
}

TEST_CASE("guards keep the memory of a closed bus, which the peer hears of at once") {
    const Handles ends;
    ends.send("guarded");
    REQUIRE(ends.consumer->enter());
    Frame frame{};
    REQUIRE(ends.consumer->bus()->try_peek(frame) == Status::ok);
    ends.consumer->open_guard();
    ends.consumer->open_guard();
    ends.consumer->leave();
    ends.consumer->close(End::closed);
    CHECK(ends.producer->try_send("x", 1, 0) == Status::peer_closed);
    CHECK(text_of(frame) == "guarded");
    REQUIRE(ends.consumer->enter());
    ends.consumer->leave();
    ends.consumer->end_guard();
    REQUIRE(ends.consumer->bus() != nullptr);
    CHECK(text_of(frame) == "guarded");
    CHECK(ends.consumer->bus()->release(frame) == Status::closed);
    ends.consumer->end_guard();
    CHECK(ends.consumer->bus() == nullptr);
}

TEST_CASE("a guard that ends beside a waiting user leaves the closing to that one") {
    const Handles ends;
    REQUIRE(ends.consumer->enter());  // and waits, without the lock
    ends.consumer->open_guard();
    ends.consumer->close(End::closed);
    ends.consumer->end_guard();
    REQUIRE(ends.consumer->bus() != nullptr);
    CHECK(ends.consumer->bus()->wait_readable(kNever) == Status::closed);
    CHECK_FALSE(ends.consumer->gate().is_closed());
    ends.consumer->leave();
    CHECK(ends.consumer->bus() == nullptr);
}

TEST_CASE("what free code holds keeps the memory, until it is given back or found gone") {
    const Handles ends;
    ends.send("one");
    ends.send("two");
    std::array<Frame, 2> frames{};
    std::size_t count = 0;
    std::uint8_t* payload = nullptr;
    REQUIRE(ends.consumer->try_drain(frames.data(), 2, count) == Status::ok);
    REQUIRE(ends.producer->try_claim(5, payload) == Status::ok);
    ends.consumer->close(End::closed);
    ends.producer->close(End::closed);
    CHECK(text_of(frames[1]) == "two");
    std::memcpy(payload, "still", 5);
    CHECK((ends.producer->gate().held() == 1 && ends.consumer->gate().held() == 2));
    SECTION("one by one") {
        CHECK(ends.consumer->release(frames[0]) == Status::closed);
        CHECK(ends.consumer->gate().held() == 1);
        CHECK(ends.consumer->release(frames[1]) == Status::closed);
        CHECK(ends.producer->commit(5, 0) == Status::closed);
    }
    SECTION("together") {
        CHECK(ends.consumer->release_all(frames.data(), 2) == Status::closed);
        CHECK(ends.producer->abort() == Status::closed);
    }
    CHECK(ends.consumer->release(frames[0]) == Status::closed);  // more than there were
    for (BusHandle* handle : {ends.producer.get(), ends.consumer.get()}) {
        CHECK(handle->gate().held() == 0);
        CHECK(handle->gate().guards() == 0);
        CHECK(handle->bus() != nullptr);  // free code lets no memory go
        REQUIRE(handle->enter());
        handle->leave();
        CHECK(handle->bus() == nullptr);
    }
}

TEST_CASE("what the peer's end takes is counted as given back") {
    const Handles ends;
    std::uint8_t* payload = nullptr;
    REQUIRE(ends.producer->try_claim(5, payload) == Status::ok);
    ends.consumer->close(End::aborted);
    CHECK(ends.producer->commit(5, 0) == Status::peer_aborted);
    CHECK(ends.producer->gate().held() == 0);
    CHECK(ends.producer->enter());
}

TEST_CASE("free code that waits ends when the handle is closed, and closes it") {
    const Handles ends;
    const bool sending = GENERATE(true, false);
    if (sending) {
        while (ends.producer->try_send("x", 1, 0) == Status::ok) {}
    } else {
        ends.send("x");
        Frame frame{};
        REQUIRE(ends.consumer->try_peek(frame) == Status::ok);
        REQUIRE(ends.consumer->release(frame) == Status::ok);
    }
    BusHandle& handle = sending ? *ends.producer : *ends.consumer;
    Status status = Status::ok;
    std::thread user([&] {
        Frame frame{};
        status = sending ? handle.send("x", 1, 0, {}) : handle.peek(frame, {});
    });
    REQUIRE(eventually([&] { return handle.gate().is_inside(Gate::User::free); }));
    sleep_us(20'000);
    handle.close(End::closed);
    user.join();
    CHECK(status == Status::closed);
    CHECK(handle.gate().is_closed());
    REQUIRE(handle.enter());
    handle.leave();
    CHECK(handle.bus() == nullptr);
}

TEST_CASE("a handle of something that was never opened is closed") {
    BusHandle handle(nullptr, "nowhere");
    CHECK(handle.closing());
    CHECK(handle.state() == Status::closed);
    CHECK(handle.capacity() == 0);
    CHECK(handle.bus() == nullptr);
    CHECK_FALSE(handle.enter());
    CHECK(all_are(each_method(handle), Status::closed));
    handle.close(End::closed);
    handle.end_guard();
    Producer* producer = nullptr;
    CHECK(handle.lend(producer) == Status::closed);
    CHECK(handle.take_back() == Status::no_claim);
}

TEST_CASE("close() beside free and locked users: each message arrives once, everybody ends, all memory goes") {
    const int rounds = (TACHYON_TEST_TSAN ? 100 : 500) * (long_form() ? 20 : 1);
    Random random(11);
    const Held before;
    std::atomic<int> wrong{0};
    for (int round = 0; round < rounds; ++round) {
        const Handles ends(4096, round % 2 == 0 ? Barrier::locked : Barrier::membarrier);
        std::mutex lock;  // the host's
        std::atomic<std::uint64_t> sent{0}, read{0};
        std::thread sender([&] {
            Status status = Status::ok;
            for (std::uint64_t i = 0; status == Status::ok; ++i) {
                status = ends.producer->send(&i, sizeof i, 0, {});
                if (status == Status::ok) ++sent;
            }
            if (status != Status::closed && status != Status::peer_closed) ++wrong;
        });
        const bool locked = round % 4 < 2;
        std::thread reader([&] {
            Waiting waiting;
            waiting.looks = 8;
            waiting.host = {[](void* context) { static_cast<std::mutex*>(context)->unlock(); },
                            [](void* context) { static_cast<std::mutex*>(context)->lock(); }, &lock};
            Status status = Status::ok;
            for (std::uint64_t i = 0;; ++i) {
                Frame frame{};
                std::uint64_t number = 0;
                if (locked) {
                    const std::lock_guard guard(lock);
                    if (!ends.consumer->enter()) {
                        status = ends.consumer->why_not_entered();
                        break;
                    }
                    status = ends.consumer->bus()->peek(frame, waiting);
                    if (status == Status::ok) {
                        std::memcpy(&number, frame.payload, sizeof number);
                        (void)ends.consumer->bus()->release(frame);
                    }
                    ends.consumer->leave();
                } else {
                    status = ends.consumer->peek(frame, {});
                    if (status == Status::ok) {
                        std::memcpy(&number, frame.payload, sizeof number);
                        const Status released = ends.consumer->release(frame);
                        if (released != Status::ok && released != Status::closed) ++wrong;
                    }
                }
                if (status != Status::ok) break;
                if (number != i) ++wrong;
                ++read;
            }
            if (status != Status::closed && status != Status::peer_closed) ++wrong;
        });
        sleep_us(static_cast<unsigned>(random.below(600)));
        {
            const std::lock_guard guard(lock);
            (random.one_in(2) ? ends.producer : ends.consumer)->close(End::closed);
        }
        sender.join();
        reader.join();
        for (BusHandle* handle : {ends.producer.get(), ends.consumer.get()}) {
            handle->close(End::closed);
            if (handle->bus() != nullptr && handle->enter()) handle->leave();
            if (handle->bus() != nullptr || handle->gate().guards() != 0) ++wrong;
        }
        if (read > sent) ++wrong;
    }
    CHECK(wrong == 0);
    CHECK(Held() == before);
}

// ---- fork ----------------------------------------------------------------------------------------------------------------

#if !TACHYON_TEST_TSAN
TEST_CASE("a forked child is told so, whatever its parent was doing") {
    const Handles ends;
    ends.send("x");
    Frame frame{};
    BusHandle& handle = *ends.consumer;
    SECTION("nothing") {}
    SECTION("it was inside") { REQUIRE(handle.enter()); }
    SECTION("a guard was open") { handle.open_guard(); }
    SECTION("it held a frame") { REQUIRE(handle.try_peek(frame) == Status::ok); }
    Child child([&] {
        TACHYON_CHILD_CHECK(handle.state() == Status::forked);
        for (const Status status : each_method(handle)) TACHYON_CHILD_CHECK(status == Status::forked);
        TACHYON_CHILD_CHECK(handle.gate().held() == 0);
        handle.close(End::closed);
        TACHYON_CHILD_CHECK(handle.state() == Status::closed);
        return 0;
    });
    CHECK(child.wait() == 0);
    CHECK(handle.state() == Status::ok);
    CHECK(ends.producer->check() == Status::ok);
    ends.send("y");
}

TEST_CASE("two processes: free code receives all of a stream, and is told how it ended") {
    const Folder folder;
    const bool dies = GENERATE(true, false);
    Child child([&] {
        BusHandle handle(Bus::connect(folder.file(), connect_options()), folder.file());
        for (int i = 0; i < 5000; ++i) TACHYON_CHILD_CHECK(handle.send(&i, sizeof i, 0, 30s) == Status::ok);
        if (dies) ::raise(SIGKILL);
        handle.close(End::closed);
        return 0;
    });
    BusHandle handle(Bus::listen(folder.file(), listen_options()), folder.file());
    CHECK(handle.peer_pid() == child.pid());
    std::array<Frame, 16> frames{};
    std::size_t count = 0;
    int next = 0;
    Status status = Status::ok;
    while ((status = handle.drain(frames.data(), frames.size(), count, 30s)) == Status::ok) {
        for (std::size_t i = 0; i < count; ++i) {
            int number = -1;
            std::memcpy(&number, frames[i].payload, sizeof number);
            REQUIRE(number == next++);
        }
        REQUIRE(handle.release_all(frames.data(), count) == Status::ok);
    }
    CHECK(next == 5000);
    CHECK(status == (dies ? Status::peer_dead : Status::peer_closed));
    CHECK(child.wait() == (dies ? -SIGKILL : 0));
}
#endif
