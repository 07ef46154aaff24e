#include "tachyon/wait_set.hpp"

#include <array>

#include "line.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a wait set says which of many has a frame") {
    std::vector<std::unique_ptr<Line>> lines;
    WaitSet set;
    for (WaitSet::Token i = 0; i < 5; ++i) {
        lines.push_back(std::make_unique<Line>());
        set.add(100 + i, lines.back()->ours());
    }
    WaitSet::Token token = 0;
    CHECK(set.poll(token) == Status::empty);
    CHECK(set.wait(in_ms(1), token) == Status::empty);
    for (const std::size_t i : {3u, 0u, 4u}) {
        lines[i]->put();
        REQUIRE(set.wait(in_ms(30'000), token) == Status::ok);
        CHECK(token == 100 + i);
        lines[i]->take();
        CHECK(set.poll(token) == Status::empty);
    }
}

TEST_CASE("members of a wait set that are always ready are served in turn") {
    std::vector<std::unique_ptr<Line>> lines;
    WaitSet set;
    for (WaitSet::Token i = 0; i < 3; ++i) {
        lines.push_back(std::make_unique<Line>());
        set.add(i, lines.back()->ours());
        for (int n = 0; n < 10; ++n) lines.back()->put();
    }
    std::array<int, 3> served{};
    for (int n = 0; n < 15; ++n) {
        WaitSet::Token token = 99;
        REQUIRE(set.wait(kNever, token) == Status::ok);
        REQUIRE(token < 3);
        ++served[token];
        lines[token]->take();
    }
    CHECK(served == std::array<int, 3>{5, 5, 5});
}

TEST_CASE("who is removed from a wait set does not take another's turn") {
    std::vector<std::unique_ptr<Line>> lines;
    WaitSet set;
    for (WaitSet::Token i = 0; i < 3; ++i) {
        lines.push_back(std::make_unique<Line>());
        set.add(i, lines.back()->ours());
        lines.back()->put();
    }
    std::vector<WaitSet::Token> order;
    for (int n = 0; n < 3; ++n) {
        WaitSet::Token token = 99;
        REQUIRE(set.poll(token) == Status::ok);
        order.push_back(token);
        set.remove(token);
    }
    CHECK(order == std::vector<WaitSet::Token>{0, 1, 2});
}

TEST_CASE("a sleeping wait set is woken by a byte on the socket, in both forms of the barrier") {
    for (const Barrier barrier : {Barrier::locked, Barrier::membarrier}) {
        if (barrier == Barrier::membarrier && !register_membarrier()) continue;
        Line quiet(barrier), line(barrier);
        WaitSet set;
        set.add(1, quiet.ours());
        set.add(2, line.ours());
        for (std::uint64_t n = 0; n < 20; ++n) {
            const std::uint64_t parks = set.parks();
            std::atomic<bool> sent{false};
            std::thread sender([&] {
                // It is asleep, or just about to be.
                eventually([&] { return line.pair.header->consumer_parked.load() == kParkedOnSocket; });
                std::uint64_t message = n;
                if (line.theirs().try_send(&message, sizeof message, 0) == Status::ok) sent = true;
            });
            WaitSet::Token token = 0;
            CHECK(wait_for(set, token) == Status::ok);
            sender.join();
            CHECK(sent);
            CHECK(token == 2);
            CHECK(set.parks() > parks);
            CHECK(line.pair.header->consumer_parked.load() == kAwake);
            line.take();
        }
    }
}

TEST_CASE("no wake of a wait set is lost, in either form of the barrier") {
    const auto barrier = GENERATE(Barrier::locked, Barrier::membarrier);
    if (barrier == Barrier::membarrier && !register_membarrier()) return;
    constexpr int kLines = 3;
    const std::uint64_t rounds = long_form() ? 300'000 : 3'000;
    std::vector<std::unique_ptr<Line>> lines;
    WaitSet set;
    for (WaitSet::Token i = 0; i < kLines; ++i) {
        lines.push_back(std::make_unique<Line>(barrier));
        set.add(i, lines.back()->ours());
    }
    std::atomic<std::uint64_t> asked{0}, answered{0};
    std::atomic<bool> given_up{false};
    std::thread sender([&] {
        Random random(7);
        for (std::uint64_t n = 1; n <= rounds && !given_up; ++n) {
            if (random.one_in(4)) sleep_us(static_cast<unsigned>(random.below(120)));
            if (lines[random.below(kLines)]->theirs().try_send(&n, sizeof n, 0) != Status::ok) return;
            asked = n;
            const std::uint64_t until = in_ms(30'000);
            while (answered.load() != n && now_ns() < until) cpu_relax();
        }
    });
    std::uint64_t slept_through = 0;
    for (std::uint64_t n = 1; n <= rounds; ++n) {
        WaitSet::Token token = 99;
        const std::uint64_t begun = now_ns();
        if (wait_for(set, token) != Status::ok) break;
        // A lost wake shows as a whole slice, although the message had been there.
        slept_through += now_ns() - begun > kSlice && now_ns() - begun < 2 * kSlice;
        lines[token]->take();
        answered = n;
    }
    given_up = true;
    sender.join();
    CHECK(asked.load() == rounds);
    CHECK(slept_through < rounds / 100);  // not one in a hundred, where a noisy machine adds some of its own
    CHECK(set.parks() > 0);
}

// See wait.hpp: the peer may have missed what was said before that barrier, for a moment.
TEST_CASE("the first sleep after a membarrier is a short one") {
    Line line(Barrier::membarrier);
    WaitSet set;
    set.add(1, line.ours());
    // One, nearly a slice, the rest; a machine that is late makes them fewer, never more.
    CHECK(eventually([&] {
        line.put();
        line.take();
        const std::uint64_t until = now_ns() + kSlice + kSlice / 5;
        WaitSet::Token token = 0;
        int waits = 0;
        for (; now_ns() < until; ++waits) {
            if (set.wait(until, token) == Status::ok) return false;
        }
        return waits > 2;
    }));
}

TEST_CASE("a wait set waits for room as well as for frames") {
    BusPair pair = make_pair(kCapacity);
    Bus &producer = *pair.first, &consumer = *pair.second;
    WaitSet set;
    std::vector<std::uint8_t> message(1500);  // two of them leave room, but not for a third
    REQUIRE(producer.try_send(message.data(), message.size(), 0) == Status::ok);
    set.add(7, producer);
    set.await_room(7, producer, message.size());
    WaitSet::Token token = 0;
    REQUIRE(set.wait(kNever, token) == Status::ok);
    while (producer.try_send(message.data(), message.size(), 0) == Status::ok) continue;
    CHECK(set.poll(token) == Status::empty);
    std::thread reader([&] {
        eventually([&] { return pair.header->producer_parked.load() == kParkedOnSocket; });
        Frame frame{};
        while (consumer.try_peek(frame) == Status::ok) (void)consumer.release(frame);
    });
    CHECK(wait_for(set, token) == Status::ok);
    reader.join();
    CHECK(token == 7);
    CHECK(producer.try_send(message.data(), message.size(), 0) == Status::ok);
}

TEST_CASE("a wait set says when the peer of a member has closed or gone") {
    Line closing, dying, quiet;
    WaitSet set;
    set.add(1, closing.ours());
    set.add(2, dying.ours());
    set.add(3, quiet.ours());
    WaitSet::Token token = 0;
    closing.theirs().close();
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 1);
    Frame frame{};
    CHECK(closing.ours().try_peek(frame) == Status::peer_closed);
    set.remove(1);
    ::shutdown(dying.theirs().connection()->socket(), SHUT_RDWR);  // as when its process ends
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 2);
    CHECK(eventually([&] { return dying.ours().try_peek(frame) == Status::peer_dead; }));
    set.remove(2);
    CHECK(set.wait(in_ms(5), token) == Status::empty);
}

TEST_CASE("busy members keep neither a descriptor nor the news of a death waiting") {
    Line busy, dying;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Descriptor out(ends[0]), in(ends[1]);
    WaitSet set;
    set.add(1, busy.ours());
    set.add(2, dying.ours());
    set.add_descriptor(3, out.get());
    busy.put();  // never taken: always ready
    const auto comes = [&](WaitSet::Token wanted) {
        return eventually([&] {
            WaitSet::Token token = 0;
            return set.wait(kNever, token) == Status::ok && token == wanted;
        });
    };
    REQUIRE(::write(in.get(), "x", 1) == 1);
    CHECK(comes(3));
    char byte = 0;
    REQUIRE(::read(out.get(), &byte, 1) == 1);
    WaitSet::Token token = 0;
    while (set.wait(kNever, token) == Status::ok && token == 3) continue;  // once more at most, from before the read
    for (int n = 0; n < 1000; ++n) {
        REQUIRE(set.wait(kNever, token) == Status::ok);
        REQUIRE(token == 1);
    }
    ::shutdown(dying.theirs().connection()->socket(), SHUT_RDWR);
    CHECK(comes(2));
}

TEST_CASE("who is removed from a wait set is not heard of again, and nothing is left behind") {
    const Held before;
    {
        Line line, other;
        WaitSet set;
        set.add(1, line.ours());
        set.add(2, other.ours());
        line.put();
        set.remove(1);
        set.remove(1);
        WaitSet::Token token = 0;
        CHECK(set.wait(in_ms(2), token) == Status::empty);
        line.theirs().connection()->knock();
        CHECK(set.wait(in_ms(2), token) == Status::empty);
        other.put();
        CHECK(set.wait(kNever, token) == Status::ok);
        CHECK(token == 2);
        set.add(1, line.ours());
        other.take();
        CHECK(set.wait(kNever, token) == Status::ok);
        CHECK(token == 1);
    }
    CHECK(Held() == before);
}

TEST_CASE("an empty ring of a wait set hands back what was freed before") {
    BusPair pair = make_pair(kCapacity);
    Bus &consumer = *pair.first, &producer = *pair.second;
    std::vector<std::uint8_t> small(16), large(kCapacity - 16);
    REQUIRE(producer.try_send(small.data(), small.size(), 0) == Status::ok);
    Frame frame{};
    REQUIRE(consumer.try_peek(frame) == Status::ok);
    REQUIRE(consumer.release(frame) == Status::ok);
    WaitSet set;
    set.add(1, consumer);
    CHECK(producer.try_send(large.data(), large.size(), 0) == Status::full);
    WaitSet::Token token = 0;
    CHECK(set.poll(token) == Status::ok);  // the padding that went ahead of the large one
    CHECK(consumer.try_peek(frame) == Status::empty);
    CHECK(set.poll(token) == Status::empty);
    CHECK(producer.try_send(large.data(), large.size(), 0) == Status::ok);
}
