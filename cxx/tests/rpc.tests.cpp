#include "tachyon/rpc.hpp"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

struct Rings {
    RpcRings served, called;
};

// Over a real handshake.
Rings open_rings(std::uint64_t calls, std::uint64_t replies) {
    const Folder folder;
    Rings rings;
    std::thread listening([&] {
        ListenOptions options;
        options.capacities = {calls, replies};
        options.deadline = in_ms(30'000);
        rings.served = listen_rpc(folder.file(), options);
    });
    ConnectOptions options;
    options.deadline = in_ms(30'000);
    rings.called = connect_rpc(folder.file(), options);
    listening.join();
    return rings;
}

// A caller and a callee in one process.
struct Pair {
    explicit Pair(std::uint64_t calls = 1 << 16, std::uint64_t replies = 1 << 16) : rings(open_rings(calls, replies)) {}

    std::uint64_t call(const std::string& text) {
        std::uint64_t id = 0;
        REQUIRE(caller.try_call(text.data(), text.size(), 1, id) == Status::ok);
        return id;
    }
    // Serves one call and answers it with its own bytes.
    std::uint64_t answer() {
        Frame frame{};
        REQUIRE(callee.try_serve(frame) == Status::ok);
        const std::string text(reinterpret_cast<const char*>(frame.payload), frame.size);
        const std::uint64_t id = frame.correlation_id;
        REQUIRE(served.calls->release(frame) == Status::ok);
        REQUIRE(callee.try_reply(id, text.data(), text.size(), 2) == Status::ok);
        return id;
    }
    std::string take(std::uint64_t id) {
        Frame frame{};
        REQUIRE(caller.try_wait(id, frame) == Status::ok);
        CHECK(frame.correlation_id == id);
        const std::string text(reinterpret_cast<const char*>(frame.payload), frame.size);
        caller.release(frame);
        return text;
    }
    void gather_all() {
        do caller.gather();
        while (caller.unfinished());
    }
    Status look(std::uint64_t id) {
        Frame frame{};
        const Status status = caller.try_wait(id, frame);
        if (status == Status::ok) caller.release(frame);
        return status;
    }

    Rings rings;
    RpcRings& served = rings.served;
    Caller caller{rings.called};
    Callee callee{rings.served};
};

}  // namespace

TEST_CASE("a window remembers the last ids, and no others") {
    CallWindow window;
    CHECK(window.state(0) == CallWindow::State::none);
    CHECK(window.state(1) == CallWindow::State::none);
    window.set(1, CallWindow::State::open);
    CHECK(window.state(1) == CallWindow::State::open);
    window.set(kMostCallsInFlight, CallWindow::State::open);
    CHECK(window.state(1) == CallWindow::State::open);
    window.set(kMostCallsInFlight + 1, CallWindow::State::set_aside);
    CHECK(window.state(1) == CallWindow::State::none);
    window.set(1, CallWindow::State::open);  // too long ago: the place is another's
    CHECK(window.state(1) == CallWindow::State::none);
    CHECK(window.state(kMostCallsInFlight + 1) == CallWindow::State::set_aside);
    CHECK(window.state(UINT64_MAX) == CallWindow::State::none);
}

TEST_CASE("replies are matched whatever their order") {
    Pair pair;
    std::vector<std::uint64_t> ids;
    for (int i = 0; i < 100; ++i) ids.push_back(pair.call(std::to_string(i)));
    CHECK(ids.front() == 1);
    CHECK(ids.back() == 100);
    CHECK(pair.caller.in_flight() == 100);
    for (const std::uint64_t id : ids) CHECK(pair.answer() == id);
    std::vector<std::uint64_t> order = ids;
    std::shuffle(order.begin(), order.end(), std::mt19937(7));
    for (const std::uint64_t id : order) CHECK(pair.take(id) == std::to_string(id - 1));
    CHECK(pair.caller.in_flight() == 0);
    CHECK(pair.caller.set_aside() == 0);
    CHECK(pair.caller.dropped() == 0);
    for (const std::uint64_t id : ids) CHECK(pair.look(id) == Status::unknown_call);
}

TEST_CASE("the reply waited for is handed over in place, another one from its own copy") {
    Pair pair;
    const std::uint64_t first = pair.call("first"), second = pair.call("second");
    pair.answer();
    pair.answer();
    Frame frame{};
    REQUIRE(pair.caller.try_wait(second, frame) == Status::ok);
    CHECK(pair.caller.set_aside() == 1);
    CHECK(frame.position == kLine);  // behind the first, which has left the ring
    Frame other{};
    REQUIRE(pair.caller.try_wait(first, other) == Status::ok);  // several may be held
    CHECK(pair.look(first) == Status::unknown_call);            // each is had once
    pair.caller.release(frame);
    pair.caller.release(frame);  // once is enough
    CHECK(std::string(reinterpret_cast<const char*>(other.payload), other.size) == "first");
    pair.caller.release(other);
    pair.caller.release(other);
    CHECK(pair.caller.set_aside() == 0);
    CHECK(pair.caller.dropped() == 0);
}

TEST_CASE("a look goes through so many replies at most, and the next one goes on") {
    Pair pair(1 << 16, 1 << 24);
    const std::uint64_t id = pair.call("asked");
    Frame frame{};
    SECTION("many") {
        for (std::uint64_t i = 0; i < 2 * kMostRepliesPerLook; ++i) {
            REQUIRE(pair.served.replies->try_send("", 0, 2, 1 << 20) == Status::ok);
        }
        pair.answer();
        for (std::uint64_t look = 1; look <= 2; ++look) {
            if (look == 1) {
                CHECK(pair.caller.try_wait(id, frame) == Status::empty);
            } else {
                pair.caller.gather();
            }
            CHECK(pair.caller.unfinished());
            CHECK(pair.caller.dropped() == look * kMostRepliesPerLook);
            CHECK(pair.caller.passed() == look * kMostRepliesPerLook * kLine);
        }
    }
    SECTION("large ones") {
        const std::string large(kMostBytesPerLook / 2, 'x');
        for (int i = 0; i < 8; ++i) {
            REQUIRE(pair.served.replies->try_send(large.data(), large.size(), 2, 1 << 20) == Status::ok);
        }
        pair.answer();
        for (std::uint64_t look = 1; look <= 4; ++look) {
            if (look % 2 == 1) {
                CHECK(pair.caller.try_wait(id, frame) == Status::empty);
            } else {
                pair.caller.gather();
            }
            CHECK(pair.caller.unfinished());
            CHECK(pair.caller.dropped() == look * 2);
        }
    }
    CHECK(pair.take(id) == "asked");
    CHECK_FALSE(pair.caller.unfinished());
    CHECK(pair.look(id) == Status::unknown_call);
    pair.caller.gather();
    CHECK_FALSE(pair.caller.unfinished());
}

TEST_CASE("abandoned, unknown and repeated replies are dropped and counted") {
    Pair pair;
    const std::uint64_t gone = pair.call("gone"), kept = pair.call("kept");
    CHECK(pair.caller.cancel(gone));
    CHECK_FALSE(pair.caller.cancel(gone));
    CHECK_FALSE(pair.caller.cancel(0));
    pair.answer();
    for (const std::uint64_t id : {std::uint64_t{0}, std::uint64_t{99}, UINT64_MAX, gone}) {
        REQUIRE(pair.served.replies->try_send("x", 1, 2, id) == Status::ok);
    }
    pair.answer();
    CHECK(pair.take(kept) == "kept");
    REQUIRE(pair.served.replies->try_send("x", 1, 2, kept) == Status::ok);
    pair.caller.gather();
    CHECK(pair.caller.dropped() == 6);
    CHECK(pair.caller.set_aside() == 0);
    CHECK(pair.look(gone) == Status::unknown_call);
}

TEST_CASE("a reply that is read from its copy outlives the window") {
    Pair pair(1 << 23, 1 << 23);
    const std::uint64_t first = pair.call("first");
    pair.answer();
    pair.caller.gather();
    Frame frame{};
    REQUIRE(pair.caller.try_wait(first, frame) == Status::ok);
    for (std::uint64_t i = 0; i < kMostCallsInFlight; ++i) {
        pair.call("x");
        pair.answer();
    }
    pair.gather_all();
    CHECK(std::string(reinterpret_cast<const char*>(frame.payload), frame.size) == "first");
    pair.caller.release(frame);
    CHECK(pair.caller.set_aside() == kMostCallsInFlight);
    CHECK(pair.take(first + kMostCallsInFlight) == "x");
}

TEST_CASE("the limit of what is set aside holds while the oldest of it is being read") {
    Pair pair(1 << 16, 4 << 20);
    const std::string large(1 << 20, 'x');
    std::vector<std::uint64_t> ids;
    const auto call_and_gather = [&] {
        ids.push_back(pair.call("?"));
        Frame frame{};
        REQUIRE(pair.callee.try_serve(frame) == Status::ok);
        REQUIRE(pair.served.calls->release(frame) == Status::ok);
        REQUIRE(pair.callee.try_reply(ids.back(), large.data(), large.size(), 2) == Status::ok);
        pair.caller.gather();
    };
    call_and_gather();
    Frame oldest{};
    REQUIRE(pair.caller.try_wait(ids[0], oldest) == Status::ok);
    while (ids.size() < 80) call_and_gather();
    CHECK(pair.caller.set_aside() == kMostBytesSetAside >> 20);
    CHECK(std::string(reinterpret_cast<const char*>(oldest.payload), oldest.size) == large);
    pair.caller.release(oldest);
    CHECK(pair.caller.set_aside() == (kMostBytesSetAside >> 20) - 1);
    CHECK(pair.look(ids[1]) == Status::unknown_call);
    CHECK(pair.take(ids.back()) == large);
}

TEST_CASE("a reply that has been released does not release the next one") {
    Pair pair;
    const std::uint64_t first = pair.call("first"), second = pair.call("second"), third = pair.call("third");
    for (int i = 0; i < 3; ++i) pair.answer();
    Frame before{}, held{}, other{};
    REQUIRE(pair.caller.try_wait(first, before) == Status::ok);
    pair.caller.release(before);
    REQUIRE(pair.caller.try_wait(second, held) == Status::ok);
    pair.caller.release(before);
    REQUIRE(pair.caller.try_wait(third, other) == Status::ok);
    CHECK(std::string(reinterpret_cast<const char*>(held.payload), held.size) == "second");
    pair.caller.release(other);
    pair.caller.release(before);
    CHECK(std::string(reinterpret_cast<const char*>(held.payload), held.size) == "second");
    pair.caller.release(held);
    CHECK(pair.served.replies->check_read() == Status::ok);
}

TEST_CASE("what is behind a reply that is held in place is set aside, and its room comes with the one that is held") {
    Pair pair;
    const std::uint64_t first = pair.call("first"), second = pair.call("second");
    pair.answer();
    pair.answer();
    Frame frame{};
    REQUIRE(pair.caller.try_wait(first, frame) == Status::ok);
    pair.caller.gather();
    CHECK(pair.caller.set_aside() == 1);
    CHECK(std::string(reinterpret_cast<const char*>(frame.payload), frame.size) == "first");
    CHECK(pair.served.replies->check_read() == Status::full);
    pair.caller.release(frame);
    CHECK(pair.served.replies->check_read() == Status::ok);
    CHECK(pair.take(second) == "second");
}

TEST_CASE("a callee answers each call once, and only calls that it has served") {
    Pair pair;
    const std::uint64_t id = pair.call("x");
    CHECK(pair.callee.try_reply(id, "y", 1, 2) == Status::unknown_call);
    Frame frame{};
    REQUIRE(pair.callee.try_serve(frame) == Status::ok);
    REQUIRE(pair.served.calls->release(frame) == Status::ok);
    for (const std::uint64_t wrong : {std::uint64_t{0}, id + 1, UINT64_MAX}) {
        CHECK(pair.callee.try_reply(wrong, "y", 1, 2) == Status::unknown_call);
    }
    CHECK(pair.callee.try_reply(id, "y", 1, 2) == Status::ok);
    CHECK(pair.callee.try_reply(id, "y", 1, 2) == Status::unknown_call);
    CHECK(pair.take(id) == "y");
}

TEST_CASE("a call whose id is not the one after the last is corruption") {
    for (const std::uint64_t second : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, UINT64_MAX}) {
        Pair pair;
        Frame frame{};
        REQUIRE(pair.rings.called.calls->try_send("x", 1, 1, 1) == Status::ok);
        REQUIRE(pair.callee.try_serve(frame) == Status::ok);
        REQUIRE(pair.served.calls->release(frame) == Status::ok);
        REQUIRE(pair.rings.called.calls->try_send("x", 1, 1, second) == Status::ok);
        CHECK(pair.callee.try_serve(frame) == Status::corrupt);
        CHECK(pair.callee.try_serve(frame) == Status::corrupt);
    }
}

TEST_CASE("a close of both rings is never taken for a death") {
    for (int round = 0; round < 50; ++round) {
        Pair pair;
        const std::uint64_t id = pair.call("x");
        std::thread closing([&] {
            pair.served.calls->close();
            pair.served.replies->close();
        });
        Status status = Status::empty;
        while ((status = pair.look(id)) == Status::empty) {}
        CHECK(status == Status::peer_closed);
        closing.join();
    }
}

TEST_CASE("roles are fixed from the start") {
    Pair pair;
    CHECK(pair.rings.called.replies->try_send("x", 1, 1) == Status::wrong_side);
    CHECK(pair.served.calls->try_send("x", 1, 1) == Status::wrong_side);
    Frame frame{};
    CHECK(pair.rings.called.calls->try_peek(frame) == Status::wrong_side);
    CHECK(pair.rings.called.calls->stats().producer == Side::connector);
    CHECK(pair.served.replies->stats().producer == Side::listener);
}
