#include "tachyon/host/rpc_handle.hpp"

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;
using namespace std::chrono_literals;

namespace {

// A caller and a callee over a real handshake.
struct Pair {
    explicit Pair(std::uint64_t calls = 1 << 16, std::uint64_t replies = 1 << 16) {
        const Folder folder;
        std::thread listening([&] {
            ListenOptions options;
            options.capacities = {calls, replies};
            options.deadline = in_ms(30'000);
            callee = std::make_unique<RpcHandle>(listen_rpc(folder.file(), options), "here", RpcHandle::Role::callee);
        });
        caller =
            std::make_unique<RpcHandle>(connect_rpc(folder.file(), connect_options()), "here", RpcHandle::Role::caller);
        listening.join();
    }
    std::uint64_t call(std::string_view text) const {
        std::uint64_t id = 0;
        REQUIRE(caller->call(text.data(), text.size(), 1, id, 1s) == Status::ok);
        return id;
    }
    // Serves a call and answers it with its own bytes.
    void answer() const {
        Frame frame{};
        REQUIRE(callee->peek_call(frame, 1s) == Status::ok);
        const std::uint64_t id = frame.correlation_id;
        REQUIRE(callee->reply(id, frame.payload, frame.size, 2, 1s) == Status::ok);
        REQUIRE(callee->release_call(frame) == Status::ok);
    }
    // Replies nobody asked for, as many as there is room for or `most`.
    std::uint64_t flood(std::uint64_t most = UINT64_MAX) const {
        std::uint64_t count = 0;
        while (count < most && callee->replies().bus()->try_send("x", 1, 0, 1 << 30) == Status::ok) ++count;
        return count;
    }
    std::string take(std::uint64_t id, const Waiting& waiting = 1s) const {
        Frame frame{};
        const Status status = caller->peek_reply(id, frame, waiting);
        if (status != Status::ok) return std::to_string(-static_cast<int>(status));
        std::string text(reinterpret_cast<const char*>(frame.payload), frame.size);
        REQUIRE(caller->release_reply(frame) == Status::ok);
        return text;
    }
    std::unique_ptr<RpcHandle> caller, callee;
};

const std::string kEmpty = "-1", kClosed = "-11", kUnknown = "-13", kBusy = "-14";

}  // namespace

TEST_CASE("free code calls, serves, replies and waits") {
    const Pair pair;
    const std::uint64_t first = pair.call("first");
    std::uint8_t* payload = nullptr;
    REQUIRE(pair.caller->claim_call(100, payload, 1s) == Status::ok);
    std::memcpy(payload, "second", 6);
    std::uint64_t second = 0;
    CHECK(pair.caller->commit_call(101, 3, second) == Status::too_large);
    CHECK(pair.caller->commit_call(6, 3, second) == Status::ok);
    CHECK(second == first + 1);
    CHECK(pair.caller->commit_call(6, 3, second) == Status::no_claim);
    CHECK(pair.caller->claim_call(100, payload, 1s) == Status::ok);
    CHECK(pair.caller->abort_call() == Status::ok);
    pair.answer();
    Frame frame{};
    REQUIRE(pair.callee->peek_call(frame, 1s) == Status::ok);
    CHECK(frame.correlation_id == second);
    REQUIRE(pair.callee->claim_reply(second, 10, payload, 1s) == Status::ok);
    CHECK(pair.callee->abort_reply() == Status::ok);
    REQUIRE(pair.callee->claim_reply(second, 10, payload, 1s) == Status::ok);
    std::memcpy(payload, "its answer", 10);
    CHECK(pair.callee->commit_reply(second, 10, 4) == Status::ok);
    CHECK(pair.callee->reply(second, "", 0, 0, 1s) == Status::unknown_call);  // each once
    CHECK(pair.callee->claim_reply(second, 1, payload, 1s) == Status::unknown_call);
    CHECK(pair.callee->release_call(frame) == Status::ok);
    CHECK(pair.take(second) == "its answer");
    CHECK(pair.take(first) == "first");
    CHECK(pair.take(first) == kUnknown);
    const std::uint64_t third = pair.call("third");
    CHECK(pair.take(third, 1ms) == kEmpty);
    CHECK(pair.caller->cancel(third) == Status::ok);
    CHECK(pair.caller->cancel(third) == Status::unknown_call);
    for (RpcHandle* handle : {pair.caller.get(), pair.callee.get()}) {
        CHECK(handle->calls().gate().held() == 0);
        CHECK(handle->replies().gate().held() == 0);
    }
}

TEST_CASE("each side has its own verbs, and types their bounds") {
    const Pair pair;
    std::uint8_t* payload = nullptr;
    std::uint64_t id = 77;
    Frame frame{};
    CHECK(pair.callee->call("", 0, 1, id, 0ms) == Status::wrong_side);
    CHECK(pair.callee->claim_call(1, payload, 0ms) == Status::wrong_side);
    CHECK(pair.callee->commit_call(1, 1, id) == Status::wrong_side);
    CHECK(pair.callee->abort_call() == Status::wrong_side);
    CHECK(pair.callee->peek_reply(1, frame, 0ms) == Status::wrong_side);
    CHECK(pair.callee->release_reply(frame) == Status::wrong_side);
    CHECK(pair.callee->cancel(1) == Status::wrong_side);
    CHECK(pair.caller->peek_call(frame, 0ms) == Status::wrong_side);
    CHECK(pair.caller->release_call(frame) == Status::wrong_side);
    CHECK(pair.caller->reply(1, "", 0, 1, 0ms) == Status::wrong_side);
    CHECK(pair.caller->claim_reply(1, 1, payload, 0ms) == Status::wrong_side);
    CHECK(pair.caller->commit_reply(1, 1, 1) == Status::wrong_side);
    CHECK(pair.caller->abort_reply() == Status::wrong_side);
    CHECK(pair.caller->call("", 0, kMostCallType + 1, id, 0ms) == Status::bad_type);
    CHECK(pair.caller->commit_call(0, kMostCallType + 1, id) == Status::bad_type);
    CHECK(pair.callee->reply(1, "", 0, kMostReplyType + 1, 0ms) == Status::bad_type);
    CHECK(pair.callee->commit_reply(1, 0, kMostReplyType + 1) == Status::bad_type);
    CHECK(pair.caller->call("", 0, kMostCallType, id, 0ms) == Status::ok);
    CHECK(id == 1);
    while (pair.caller->call("x", 1, 1, id, 0ms) == Status::ok) {}
    id = 77;
    CHECK(pair.caller->call("x", 1, 1, id, 1ms) == Status::full);
    CHECK(id == 77);  // no call, no id
}

TEST_CASE("one reply is held at a time, and released as it was") {
    const Pair pair;
    const std::uint64_t first = pair.call("first"), second = pair.call("second");
    pair.answer();
    pair.answer();
    Frame frame{};
    const bool aside = GENERATE(true, false);
    REQUIRE(pair.caller->peek_reply(aside ? first : second, frame, 1s) == Status::ok);
    if (aside) {
        REQUIRE(pair.caller->release_reply(frame) == Status::ok);
        REQUIRE(pair.caller->peek_reply(second, frame, 1s) == Status::ok);
    }
    Frame other = frame;
    CHECK(pair.caller->peek_reply(first, other, 1s) == Status::claim_open);
    other.correlation_id = 99;
    CHECK(pair.caller->release_reply(other) == Status::no_claim);
    CHECK_FALSE(pair.caller->replies().enter());
    other = frame;
    other.position = 12345;  // changed by free code: ours counts
    CHECK(pair.caller->release_reply(other) == Status::ok);
    CHECK(pair.caller->release_reply(frame) == Status::no_claim);
    CHECK(pair.caller->replies().bus()->stats().messages == 2);  // both are free again
    CHECK(pair.caller->replies().enter());
}

TEST_CASE("free code is inside both rings, so that a user of either keeps it out") {
    const Pair pair;
    const std::uint64_t id = pair.call("x");
    BusHandle& ring = GENERATE(true, false) ? pair.caller->calls() : pair.caller->replies();
    REQUIRE(ring.enter());
    CHECK(pair.take(id, 0ms) == kBusy);
    std::uint64_t another = 0;
    CHECK(pair.caller->call("", 0, 1, another, 0ms) == Status::busy);
    CHECK(pair.caller->cancel(id) == Status::busy);
    ring.leave();
    ring.open_guard();
    CHECK(pair.caller->cancel(id) == Status::claim_open);
    ring.end_guard();
    CHECK(pair.caller->cancel(id) == Status::ok);
    CHECK(pair.caller->calls().gate().is_inside(Gate::User::nobody));
    CHECK(pair.caller->replies().gate().is_inside(Gate::User::nobody));
}

// ---- replies that come meanwhile -----------------------------------------------------------------------------------------

TEST_CASE("a call that waits for room takes replies in, or the two sides would wait for each other") {
    const Pair pair(4096, 4096);
    const int calls = 2000;
    std::atomic<bool> right{true};
    std::thread serving([&] {
        for (int i = 0; i < calls; ++i) {
            Frame frame{};
            if (pair.callee->peek_call(frame, 30s) != Status::ok) right = false;
            const std::uint64_t id = frame.correlation_id;
            if (pair.callee->release_call(frame) != Status::ok) right = false;
            if (pair.callee->reply(id, "answer", 6, 0, 30s) != Status::ok) right = false;
        }
    });
    std::vector<std::uint64_t> ids;
    SECTION("free code") {
        for (int i = 0; i < calls; ++i) {
            std::uint64_t id = 0;
            REQUIRE(pair.caller->call("call", 4, 0, id, 30s) == Status::ok);
            ids.push_back(id);
        }
    }
    SECTION("a locked user") {
        for (int i = 0; i < calls; ++i) {
            REQUIRE(pair.caller->calls().enter());
            REQUIRE(pair.caller->caller()->send("call", 4, 0, 30s) == Status::ok);
            ids.push_back(pair.caller->caller()->last_id());
            pair.caller->calls().leave();
        }
    }
    for (const std::uint64_t id : ids) REQUIRE(pair.take(id, 30s) == "answer");
    serving.join();
    CHECK(right);
}

TEST_CASE("a locked call leaves the replies alone while another user waits for one") {
    const Pair pair(4096, 4096);
    std::uint64_t id = 0;
    while (pair.caller->call("x", 1, 1, id, 0ms) == Status::ok) {}
    pair.answer();
    REQUIRE(pair.caller->replies().enter());  // as who waits there, without the lock
    while (pair.caller->caller()->try_send("x", 1, 1) == Status::ok) {}
    REQUIRE(pair.caller->calls().enter());
    CHECK(pair.caller->caller()->send("x", 1, 1, 5ms) == Status::full);
    CHECK(pair.caller->caller()->set_aside() == 0);
    CHECK(pair.caller->replies().gate().is_inside(Gate::User::locked));
    pair.caller->replies().leave();
    CHECK(pair.caller->caller()->send("x", 1, 1, 5ms) == Status::full);
    CHECK(pair.caller->caller()->set_aside() == 1);
    pair.caller->calls().leave();
}

TEST_CASE("a reply that was there is found behind many that nobody asked for, though there is no time") {
    const Pair pair(1 << 16, 1 << 20);
    const std::uint64_t id = pair.call("asked");
    REQUIRE(pair.flood(5 * kMostRepliesPerLook) == 5 * kMostRepliesPerLook);
    pair.answer();
    pair.flood();
    const Waiting waiting = GENERATE(Waiting::until(0), Waiting::until(1));
    CHECK(pair.take(id, waiting) == "asked");
}

TEST_CASE("a wait whose time is over goes through no more than one ring of replies, however many come meanwhile") {
    const Pair pair(1 << 16, 1 << 18);
    const std::uint64_t id = pair.call("never answered");
    using Flood = std::pair<const Pair*, int>;
    Flood flood{&pair, 0};
    Waiting waiting = Waiting::until(0);
    waiting.host.context = &flood;
    waiting.host.unlock = [](void* context) {
        auto& [more, times] = *static_cast<Flood*>(context);
        if (++times <= 1000) more->flood();
    };
    pair.flood();
    CHECK(pair.take(id, waiting) == kEmpty);
    CHECK(std::cmp_less_equal(flood.second, (1 << 18) / (kLine * kMostRepliesPerLook)));
}

TEST_CASE("a callee that floods its caller holds no call and no wait past its time, nor from a signal") {
    const Pair pair(4096, 1 << 18);
    const std::uint64_t id = pair.call("never answered");
    std::uint64_t another = 0;
    while (pair.caller->call("x", 1, 1, another, 0ms) == Status::ok) {}
    std::atomic<bool> over{false};
    std::thread flooding([&] {
        while (!over) pair.flood();
    });
    CHECK(pair.take(id, 0ms) == kEmpty);
    CHECK(pair.take(id, 100ms) == kEmpty);
    CHECK(pair.caller->call("x", 1, 1, another, 100ms) == Status::full);
    int times = 0;
    Waiting waiting = 30s;
    waiting.interrupt = {[](void* context) { return ++*static_cast<int*>(context) == 3; }, &times};
    CHECK(pair.take(id, waiting) == "-3");
    times = 0;
    CHECK(pair.caller->call("x", 1, 1, another, waiting) == Status::interrupted);
    over = true;
    flooding.join();
}

// ---- closing -------------------------------------------------------------------------------------------------------------

TEST_CASE("an RPC that is closed ends both waits, and what is held stays until it is given back") {
    const Held before;
    {
        const Pair pair;
        const std::uint64_t id = pair.call("held");
        pair.answer();
        Frame reply{};
        REQUIRE(pair.caller->peek_reply(id, reply, 1s) == Status::ok);
        std::uint8_t* payload = nullptr;
        REQUIRE(pair.caller->claim_call(4, payload, 1s) == Status::ok);
        pair.caller->close(End::closed);
        CHECK(std::string_view(reinterpret_cast<const char*>(reply.payload), reply.size) == "held");
        std::memcpy(payload, "held", 4);
        CHECK(pair.caller->release_reply(reply) == Status::closed);
        std::uint64_t none = 0;
        CHECK(pair.caller->commit_call(4, 0, none) == Status::closed);
        CHECK(pair.caller->calls().gate().guards() == 0);
        CHECK(pair.caller->replies().gate().guards() == 0);
        CHECK(pair.take(id) == kClosed);
        Frame frame{};
        CHECK(pair.callee->peek_call(frame, 1s) == Status::peer_closed);
    }
    CHECK(Held() == before);
}

TEST_CASE("what is given back is counted though only one of the two rings is closed yet") {
    const Pair pair;
    const std::uint64_t id = pair.call("held");
    pair.answer();
    Frame reply{};
    REQUIRE(pair.caller->peek_reply(id, reply, 1s) == Status::ok);
    pair.caller->calls().close(End::closed);
    CHECK(pair.caller->release_reply(reply) == Status::closed);
    CHECK(pair.caller->replies().gate().held() == 0);
}

TEST_CASE("close() beside calls and waits of other threads ends them, with all memory gone") {
    const int rounds = (TACHYON_TEST_TSAN ? 40 : 200) * (long_form() ? 20 : 1);
    Random random(5);
    const Held before;
    std::atomic<int> wrong{0};
    for (int round = 0; round < rounds; ++round) {
        const Pair pair(4096, 4096);
        std::mutex lock;
        std::thread serving([&] {
            for (;;) {
                Frame frame{};
                if (pair.callee->peek_call(frame, {}) != Status::ok) return;
                const std::uint64_t id = frame.correlation_id;
                const Status released = pair.callee->release_call(frame);
                const Status replied = pair.callee->reply(id, &id, sizeof id, 0, {});
                if (released == Status::no_claim || replied == Status::unknown_call) ++wrong;
            }
        });
        std::thread calling([&] {
            for (;;) {
                std::uint64_t id = 0, answer = 0;
                if (pair.caller->call("x", 1, 0, id, {}) != Status::ok) return;
                Frame frame{};
                if (pair.caller->peek_reply(id, frame, {}) != Status::ok) return;
                std::memcpy(&answer, frame.payload, sizeof answer);
                if (answer != id) ++wrong;
                (void)pair.caller->release_reply(frame);
            }
        });
        sleep_us(static_cast<unsigned>(random.below(500)));
        {
            const std::lock_guard guard(lock);
            (random.one_in(2) ? pair.caller : pair.callee)->close(End::closed);
        }
        serving.join();
        calling.join();
        pair.caller->close(End::closed);
        pair.callee->close(End::closed);
        for (RpcHandle* handle : {pair.caller.get(), pair.callee.get()}) {
            if (handle->calls().gate().guards() != 0 || handle->replies().gate().guards() != 0) ++wrong;
        }
    }
    CHECK(wrong == 0);
    CHECK(Held() == before);
}

#if !TACHYON_TEST_TSAN
TEST_CASE("two processes: free code calls, and hears of a death") {
    const Folder folder;
    Child child([&] {
        ListenOptions options;
        options.capacities = {4096, 4096};
        options.deadline = in_ms(30'000);
        RpcHandle callee(listen_rpc(folder.file(), options), folder.file(), RpcHandle::Role::callee);
        for (int i = 0; i < 1000; ++i) {
            Frame frame{};
            TACHYON_CHILD_CHECK(callee.peek_call(frame, 30s) == Status::ok);
            TACHYON_CHILD_CHECK(callee.reply(frame.correlation_id, frame.payload, frame.size, 0, 30s) == Status::ok);
            TACHYON_CHILD_CHECK(callee.release_call(frame) == Status::ok);
        }
        Frame last{};
        (void)callee.peek_call(last, 30s);
        ::raise(SIGKILL);
        return 0;
    });
    RpcHandle caller(connect_rpc(folder.file(), connect_options()), folder.file(), RpcHandle::Role::caller);
    Frame frame{};
    std::uint64_t id = 0;
    for (int i = 0; i < 1000; ++i) {
        REQUIRE(caller.call(&i, sizeof i, 0, id, 30s) == Status::ok);
        REQUIRE(caller.peek_reply(id, frame, 30s) == Status::ok);
        REQUIRE(std::memcmp(frame.payload, &i, sizeof i) == 0);
        REQUIRE(caller.release_reply(frame) == Status::ok);
    }
    Status status = caller.call("x", 1, 0, id, 30s);
    if (status == Status::ok) status = caller.peek_reply(id, frame, 30s);
    CHECK(status == Status::peer_dead);
    CHECK(child.wait() == -SIGKILL);
}
#endif
