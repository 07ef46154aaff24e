// A bus in a loop that waits for other things too.
#include <poll.h>

#include <array>
#include <thread>

#include "half_bus.hpp"
#include "line.hpp"
#include "tachyon/rpc.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

bool rings(Bus& bus, int ms = 0) {
    pollfd entry{bus.descriptor(), POLLIN, 0};
    return ::poll(&entry, 1, ms) == 1;
}

// What membarrier leaves over is a ring for nothing after a millisecond: past that.
void settle(Bus& bus, bool for_room) {
    while (bus.arm(for_room) && rings(bus, 20)) REQUIRE(bus.disarm());
}

}  // namespace

TEST_CASE("an armed bus rings for a message, once, and is silent before and after") {
    const auto barrier = GENERATE(Barrier::locked, Barrier::membarrier);
    if (barrier == Barrier::membarrier && !register_membarrier()) return;
    Line line(barrier);
    CHECK_FALSE(rings(line.ours()));
    line.put();
    CHECK_FALSE(rings(line.ours()));  // nobody asked for it
    CHECK_FALSE(line.ours().arm(false));
    line.take();
    settle(line.ours(), false);
    CHECK_FALSE(rings(line.ours()));
    CHECK(line.pair.header->consumer_parked.load() == kParkedOnSocket);
    line.put();
    CHECK(rings(line.ours()));
    CHECK(line.pair.header->consumer_parked.load() == kAwake);
    line.put();
    CHECK(line.ours().disarm());
    CHECK_FALSE(rings(line.ours()));
    CHECK_FALSE(line.ours().arm(false));
    CHECK(line.pair.header->consumer_parked.load() == kAwake);  // the next send pays nothing
    line.take();
    line.take();
}

TEST_CASE("no ring of an armed bus is lost, in either form of the barrier") {
    const auto barrier = GENERATE(Barrier::locked, Barrier::membarrier);
    if (barrier == Barrier::membarrier && !register_membarrier()) return;
    const std::uint64_t rounds = long_form() ? 1'000'000 : 5'000;
    Line line(barrier);
    std::atomic<std::uint64_t> taken{0};
    std::atomic<bool> given_up{false};
    std::thread sender([&] {
        Random random(3);
        for (std::uint64_t n = 1; n <= rounds && !given_up; ++n) {
            if (random.one_in(4)) sleep_us(static_cast<unsigned>(random.below(60)));
            if (line.theirs().try_send(&n, sizeof n, 0) != Status::ok) return;
            const std::uint64_t until = in_ms(30'000);
            while (taken.load() != n && now_ns() < until && !given_up) cpu_relax();
        }
    });
    std::uint64_t n = 0;
    while (n < rounds) {
        Frame frame{};
        const Status status = line.ours().try_peek(frame);
        if (status == Status::ok) {
            (void)line.ours().release(frame);
            taken = ++n;
        } else if (line.ours().arm(false)) {
            if (!rings(line.ours(), 20'000)) break;  // lost
            if (!line.ours().disarm()) break;
        }
    }
    given_up = true;
    sender.join();
    CHECK(n == rounds);
}

TEST_CASE("where a barrier may have missed a core an armed bus rings once more by itself, and then no more") {
    Line line(Barrier::membarrier);
    REQUIRE(line.ours().arm(false));
    CHECK(rings(line.ours(), 20'000));
    CHECK(line.ours().disarm());
    CHECK(eventually([&] {  // a machine that is late may need another round
        if (!line.ours().arm(false)) return false;
        if (!rings(line.ours(), 100)) return true;
        (void)line.ours().disarm();
        return false;
    }));
}

TEST_CASE("a sender that is armed is told of the room that its last send lacked") {
    BusPair pair = make_pair(kCapacity);
    Bus &producer = *pair.first, &consumer = *pair.second;
    CHECK_FALSE(producer.arm(true));  // nothing sent yet: nothing lacks
    const std::vector<std::uint8_t> small(16), large(kCapacity / 2);
    while (producer.try_send(small.data(), small.size(), 0) == Status::ok) continue;
    REQUIRE(producer.try_send(large.data(), large.size(), 0) == Status::full);
    settle(producer, true);
    const auto take = [&] {
        Frame frame{};
        REQUIRE(consumer.try_peek(frame) == Status::ok);
        REQUIRE(consumer.release(frame) == Status::ok);
    };
    take();
    REQUIRE(rings(producer));  // too little yet
    CHECK(producer.disarm());
    settle(producer, true);
    while (producer.arm(true)) {
        take();
        if (rings(producer)) REQUIRE(producer.disarm());
    }
    CHECK(producer.try_send(large.data(), large.size(), 0) == Status::ok);
}

TEST_CASE("a sender that is armed is told when everything has been read, and when the consumer has left") {
    Line line;
    Bus& producer = line.theirs();
    line.ours().hand_back();
    CHECK(producer.check_read() == Status::ok);
    line.put();
    line.put();
    REQUIRE(producer.check_read() == Status::full);
    settle(producer, true);
    line.take();
    line.ours().hand_back();
    if (rings(producer)) REQUIRE(producer.disarm());
    REQUIRE(producer.check_read() == Status::full);
    settle(producer, true);
    line.take();
    line.ours().hand_back();
    REQUIRE(rings(producer));
    REQUIRE(producer.disarm());
    CHECK_FALSE(producer.arm(true));
    CHECK(producer.check_read() == Status::ok);

    REQUIRE(producer.finish() == Status::ok);
    REQUIRE(producer.check_left() == Status::full);
    settle(producer, true);
    line.ours().close();
    REQUIRE(rings(producer));
    CHECK_FALSE(producer.disarm());
    CHECK_FALSE(producer.arm(true));
    CHECK(producer.check_left() == Status::ok);
}

TEST_CASE("the end of the peer rings for ever, and the next try says how it was") {
    const bool dies = GENERATE(false, true);
    Line line;
    Frame frame{};
    line.put();
    line.take();
    REQUIRE(line.ours().try_peek(frame) == Status::empty);
    settle(line.ours(), false);
    if (dies) {
        ::shutdown(line.theirs().connection()->socket(), SHUT_RDWR);
    } else {
        line.theirs().close();
    }
    for (int n = 0; n < 3; ++n) {
        CHECK(rings(line.ours(), 20'000));
        CHECK_FALSE(line.ours().disarm());
        CHECK_FALSE(line.ours().arm(false));
        CHECK(line.ours().try_peek(frame) == (dies ? Status::peer_dead : Status::peer_closed));
    }
}

TEST_CASE("the first message of an undecided bus rings for who armed, though the sender slept on the same word since") {
    const bool slept = GENERATE(false, true);
    BusPair pair = make_pair(kCapacity);
    Bus &ours = *pair.first, &theirs = *pair.second;
    REQUIRE(ours.arm(false));
    if (slept) {
        CHECK(theirs.wait_readable(in_ms(2)) == Status::empty);
        CHECK(pair.header->consumer_parked.load() == kParkedOnFutex);
    } else {
        REQUIRE(theirs.arm(false));
    }
    CHECK_FALSE(rings(ours));
    const std::uint64_t message = 5;
    REQUIRE(theirs.try_send(&message, sizeof message, 0) == Status::ok);
    REQUIRE(rings(ours));
    CHECK(ours.disarm());
    CHECK_FALSE(ours.arm(false));
    Frame frame{};
    CHECK(ours.try_peek(frame) == Status::ok);
    CHECK_FALSE(theirs.arm(false));  // it is the sender: the next try says so
}

TEST_CASE("a first send that nobody waits for makes no sound") {
    BusPair pair = make_pair(kCapacity);
    const std::uint64_t message = 5;
    REQUIRE(pair.second->try_send(&message, sizeof message, 0) == Status::ok);
    CHECK_FALSE(rings(*pair.first));
}

TEST_CASE("a bus that was closed, or is the child's copy, cannot be armed, and its descriptor is gone") {
    const Held before;
    {
        Line line;
        REQUIRE(line.ours().arm(false));
        const int number = line.ours().descriptor();
        if (!TACHYON_TEST_TSAN) {
            Child child([&] { return line.ours().arm(false) || ::fcntl(number, F_GETFD) >= 0 ? 1 : 0; });
            CHECK(child.wait() == 0);
            CHECK_FALSE(rings(line.ours()));  // what the child closed, it closed for itself
        }
        line.ours().close();
        CHECK_FALSE(line.ours().arm(false));
        CHECK_FALSE(line.ours().disarm());
        CHECK(::fcntl(number, F_GETFD) < 0);
    }
    CHECK(Held() == before);
}

TEST_CASE("a wait set takes a bus whose roles are not decided, and one that is closed while it is a member") {
    BusPair pair = make_pair(kCapacity), other = make_pair(kCapacity);
    WaitSet set;
    set.add(1, *pair.first);
    WaitSet::Token token = 0;
    CHECK(set.wait(in_ms(2), token) == Status::empty);
    const std::uint64_t message = 5;
    REQUIRE(pair.second->try_send(&message, sizeof message, 0) == Status::ok);
    REQUIRE(wait_for(set, token) == Status::ok);
    Frame frame{};
    REQUIRE(pair.first->try_peek(frame) == Status::ok);
    pair.first->close();
    REQUIRE(set.wait(kNever, token) == Status::ok);
    CHECK(token == 1);
    set.add(2, *other.first);  // by now perhaps of the same numbers
    set.remove(1);
    other.second->close();
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 2);
}

TEST_CASE("two rings over one connection ring by one descriptor") {
    const Folder folder;
    ListenOptions options;
    options.capacities = {4096, 4096};
    RpcRings callee;
    std::thread listening([&] { callee = listen_rpc(folder.file(), options); });
    ConnectOptions patient;
    patient.deadline = in_ms(30'000);
    RpcRings caller = connect_rpc(folder.file(), patient);
    listening.join();
    CHECK(caller.calls->descriptor() == caller.replies->descriptor());
    Caller calls(caller);
    Callee serves(callee);
    settle(*callee.calls, false);
    settle(*caller.replies, false);
    std::uint64_t id = 0;
    REQUIRE(calls.try_call("x", 1, 0, id) == Status::ok);
    REQUIRE(rings(*callee.replies, 20'000));
    CHECK(callee.calls->disarm());
    Frame call{};
    REQUIRE(serves.try_serve(call) == Status::ok);
    REQUIRE(serves.try_reply(id, "y", 1, 0) == Status::ok);
    CHECK(rings(*caller.calls, 20'000));
}
