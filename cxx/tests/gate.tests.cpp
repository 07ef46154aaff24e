#include "tachyon/host/gate.hpp"

#include <atomic>
#include <barrier>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "catch.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;
using Entry = Gate::Entry;

// ---- coming and going ----------------------------------------------------------------------------------------------------

TEST_CASE("one user is inside at a time, with the lock or without") {
    Gate gate;
    REQUIRE(gate.enter_locked());
    CHECK(gate.is_inside(Gate::User::locked));
    CHECK_FALSE(gate.enter_locked());
    CHECK(gate.enter_free() == Entry::refused);
    CHECK_FALSE(gate.leave());
    REQUIRE(gate.enter_free() == Entry::inside);
    CHECK(gate.is_inside(Gate::User::free));
    CHECK_FALSE(gate.enter_locked());
    CHECK(gate.enter_free() == Entry::refused);
    CHECK_FALSE(gate.leave());
    CHECK(gate.is_inside(Gate::User::nobody));
    CHECK(gate.enter_locked());
}

TEST_CASE("what one kind of user holds keeps the other kind out") {
    Gate gate;
    SECTION("free code holds something") {
        gate.hold(2);
        CHECK_FALSE(gate.enter_locked());
        gate.let_go(1);
        CHECK_FALSE(gate.enter_locked());
        CHECK(gate.enter_free() == Entry::inside);
        CHECK_FALSE(gate.leave());
        gate.let_go(1);
        CHECK(gate.enter_locked());
    }
    SECTION("a guard of a locked user is open") {
        gate.open_guard();
        CHECK(gate.enter_free() == Entry::refused);
        CHECK(gate.enter_locked());
        CHECK_FALSE(gate.leave());
        gate.end_guard();
        CHECK(gate.enter_free() == Entry::inside);
    }
}

TEST_CASE("what is lent stays inside, and is at home in one thread") {
    Gate gate;
    REQUIRE(gate.enter_locked());
    CHECK_FALSE(gate.is_lent());
    CHECK_FALSE(gate.is_lent_here());
    const auto as = GENERATE(Gate::User::lent_producer, Gate::User::lent_consumer);
    gate.lend(as);
    CHECK(gate.is_inside(as));
    CHECK(gate.is_lent());
    CHECK(gate.is_lent_here());
    CHECK_FALSE(gate.enter_locked());
    CHECK(gate.enter_free() == Entry::refused);
    bool elsewhere = true;
    std::thread([&] { elsewhere = gate.is_lent_here(); }).join();
    CHECK_FALSE(elsewhere);
    CHECK_FALSE(gate.leave());
    CHECK_FALSE(gate.is_lent());
    CHECK_FALSE(gate.is_lent_here());
}

// ---- closing -------------------------------------------------------------------------------------------------------------

TEST_CASE("the first who asks says how it is closed") {
    Gate gate;
    CHECK_FALSE(gate.must_close());
    gate.ask_to_close(2);
    gate.ask_to_close(1);
    CHECK(gate.must_close());
    CHECK(gate.how() == 2);
}

TEST_CASE("closing is for one, and over when that one says so") {
    Gate gate;
    gate.ask_to_close(1);
    REQUIRE(gate.begin_closing());
    CHECK_FALSE(gate.begin_closing());
    CHECK_FALSE(gate.begin_closing_freely());
    CHECK_FALSE(gate.is_closed());
    CHECK_FALSE(gate.is_over());
    gate.end_closing();
    CHECK(gate.is_closed());
    CHECK(gate.is_over());
    CHECK_FALSE(gate.begin_closing());
}

TEST_CASE("closing is left to who is inside, and told on the way out") {
    Gate gate;
    SECTION("with the lock") { REQUIRE(gate.enter_locked()); }
    SECTION("without") { REQUIRE(gate.enter_free() == Entry::inside); }
    SECTION("what is lent") {
        REQUIRE(gate.enter_locked());
        gate.lend(Gate::User::lent_consumer);
    }
    gate.ask_to_close(1);
    CHECK_FALSE(gate.begin_closing());
    CHECK_FALSE(gate.begin_closing_freely());
    CHECK(gate.leave());
    CHECK(gate.begin_closing_freely());
}

TEST_CASE("nobody comes in while it is being closed, and who is turned away has to see to it") {
    Gate gate;
    gate.ask_to_close(1);
    CHECK(gate.enter_free() == Entry::must_close);
    CHECK(gate.is_inside(Gate::User::nobody));
    CHECK_FALSE(gate.enter_locked());
    REQUIRE(gate.begin_closing());
    CHECK(gate.enter_free() == Entry::must_close);
    CHECK_FALSE(gate.enter_locked());
    gate.end_closing();
    CHECK(gate.enter_free() == Entry::must_close);
    REQUIRE(gate.enter_locked());  // to find it closed
    CHECK_FALSE(gate.is_over());
    CHECK(gate.leave());
    CHECK(gate.is_over());
}

TEST_CASE("who left before does not close it under the next user") {
    Gate gate;
    REQUIRE(gate.enter_free() == Entry::inside);
    CHECK_FALSE(gate.leave());  // and now this thread is late
    REQUIRE(gate.enter_locked());
    gate.ask_to_close(1);
    CHECK_FALSE(gate.begin_closing_freely());
    CHECK(gate.leave());
    CHECK(gate.begin_closing());
}

TEST_CASE("without the lock nobody closes it beside a guard that is open, with the lock one does") {
    Gate gate;
    gate.open_guard();
    gate.ask_to_close(1);
    CHECK_FALSE(gate.begin_closing_freely());
    REQUIRE(gate.begin_closing());
    gate.end_closing();
    CHECK_FALSE(gate.is_over());
    gate.end_guard();
    CHECK(gate.is_over());
}

TEST_CASE("what free code holds keeps the memory, but does not keep it from closing") {
    Gate gate;
    REQUIRE(gate.enter_free() == Entry::inside);
    gate.hold(2);
    CHECK_FALSE(gate.leave());
    CHECK(gate.guards() == 2);
    CHECK(gate.held() == 2);
    gate.ask_to_close(1);
    REQUIRE(gate.begin_closing_freely());
    gate.end_closing();
    gate.let_go(1);
    CHECK_FALSE(gate.is_over());
    gate.let_go(1);
    CHECK(gate.is_over());
}

TEST_CASE("what free code did with what it held comes before the memory goes") {
    Gate gate;
    REQUIRE(gate.enter_free() == Entry::inside);
    gate.hold(1);
    CHECK_FALSE(gate.leave());
    gate.ask_to_close(1);
    REQUIRE(gate.begin_closing());
    gate.end_closing();
    int memory = 0;  // ThreadSanitizer sees whether the two are in order
    std::thread holder([&] {
        memory = 1;
        gate.let_go(1);
    });
    while (!gate.is_over()) std::this_thread::yield();
    CHECK(std::exchange(memory, 2) == 1);
    holder.join();
}

// ---- beside each other ---------------------------------------------------------------------------------------------------

namespace {

// A resource behind a gate. Its own fields are plain: ThreadSanitizer and the checks see whoever touches it in a wrong moment.
struct Resource {
    void use() {
        if (closed) ++wrong;
        ++uses;
        if (closed) ++wrong;
    }
    void close() {
        if (closed) ++wrong;
        closed = true;
    }
    void close_freely() {
        if (!gate.begin_closing_freely()) return;
        close();
        gate.end_closing();
    }
    void finish() {
        if (gate.begin_closing()) {
            close();
            gate.end_closing();
        }
        if (gate.is_over() && memory != nullptr) {
            memory.reset();
            ++gone;
        }
    }

    Gate gate;
    std::mutex lock;
    std::unique_ptr<int> memory = std::make_unique<int>(0);
    bool closed = false;
    int uses = 0, wrong = 0, gone = 0;
};

void dawdle(Random& random) {
    for (std::uint64_t i = random.below(200); i > 0; --i) cpu_relax();
    if (random.one_in(64)) std::this_thread::yield();
}

}  // namespace

TEST_CASE("close() beside users that come and go closes once, never under one of them, and lets the memory go") {
    const int rounds = (TACHYON_TEST_TSAN ? 2'000 : 20'000) * (long_form() ? 50 : 1);
    const std::uint64_t until = in_ms(long_form() ? 600'000 : 3'000);  // a machine with much to do makes fewer rounds
    std::unique_ptr<Resource> now;
    std::atomic<bool> left{false};
    bool over = false;
    int failures = 0;
    std::barrier begin(4), end(4);
    const auto each_round = [&](std::uint64_t seed, auto body) {
        return [&, seed, body] {
            Random random(seed);
            for (;;) {
                begin.arrive_and_wait();
                if (over) return;
                dawdle(random);
                body(*now, random);
                end.arrive_and_wait();
            }
        };
    };
    // Comes several times, and holds something in between. Before it goes for the last time the locked user is let come.
    std::thread free_user(each_round(1, [&](Resource& it, Random& random) {
        for (std::uint64_t times = 1 + random.below(3); times > 0; --times) {
            const Entry entry = it.gate.enter_free();
            if (entry == Entry::must_close) it.close_freely();
            if (entry != Entry::inside) break;
            it.use();
            const bool holds = random.one_in(2);
            if (holds) it.gate.hold(1);
            dawdle(random);
            if (!holds && times == 1) left = true;
            if (it.gate.leave()) it.close_freely();
            if (!holds) continue;
            ++*it.memory;
            const Entry again = it.gate.enter_free();
            it.gate.let_go(1);
            if (again == Entry::inside && it.gate.leave()) it.close_freely();
            if (again == Entry::must_close) it.close_freely();
        }
        left = true;
    }));
    std::thread locked_user(each_round(2, [&](Resource& it, Random& random) {
        while (!left) std::this_thread::yield();
        it.lock.lock();
        while (it.memory != nullptr && !it.gate.must_close() && !it.gate.enter_locked()) {
            it.lock.unlock();
            std::this_thread::yield();
            it.lock.lock();
        }
        const bool guard = it.gate.is_inside(Gate::User::locked) && random.one_in(2);
        if (it.gate.is_inside(Gate::User::locked)) {
            it.use();
            if (guard) it.gate.open_guard();
            it.lock.unlock();
            dawdle(random);
            it.lock.lock();
            it.use();
            if (it.gate.leave()) it.finish();
        }
        it.lock.unlock();
        if (guard) {
            dawdle(random);
            it.lock.lock();
            ++*it.memory;
            it.gate.end_guard();
            if (it.gate.must_close()) it.finish();
            it.lock.unlock();
        }
    }));
    std::thread closer(each_round(3, [&](Resource& it, Random& random) {
        dawdle(random);
        const std::lock_guard lock(it.lock);
        it.gate.ask_to_close(1);
        it.finish();
    }));
    int uses = 0, done = 0;
    for (; done < rounds && now_ns() < until; ++done) {
        now = std::make_unique<Resource>();
        left = false;
        begin.arrive_and_wait();
        end.arrive_and_wait();
        now->finish();
        if (!now->closed || now->wrong != 0 || now->gone != 1) ++failures;
        uses += now->uses;
    }
    over = true;
    begin.arrive_and_wait();
    for (std::thread* thread : {&free_user, &locked_user, &closer}) thread->join();
    CHECK(failures == 0);
    CHECK(uses > done / 10);
}
