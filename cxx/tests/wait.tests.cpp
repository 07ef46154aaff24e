#include "tachyon/wait/wait.hpp"

#include <pthread.h>

#include <thread>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kLong = 60'000 * kMillisecond;  // a sleep this long is a lost wake, and the watchdog's business
constexpr Barrier kBarriers[] = {Barrier::locked, Barrier::membarrier};

bool never() { return false; }

void on_signal(int) {}

// SIGUSR1 interrupts system calls and does nothing else, while this lives.
class Interrupting {
  public:
    Interrupting() {
        struct sigaction action{};
        action.sa_handler = on_signal;
        ::sigaction(SIGUSR1, &action, &before_);
    }
    Interrupting(const Interrupting&) = delete;
    Interrupting& operator=(const Interrupting&) = delete;
    ~Interrupting() { ::sigaction(SIGUSR1, &before_, nullptr); }

  private:
    struct sigaction before_{};
};

}  // namespace

TEST_CASE("this kernel registers for membarrier, as often as it is asked") {
    // Where it cannot, the locked form is used and the tests of the other have nothing to say.
    REQUIRE(register_membarrier());
    REQUIRE(register_membarrier());
    CHECK(park_barrier(Barrier::membarrier));
    CHECK(park_barrier(Barrier::locked));
}

// ---- waking --------------------------------------------------------------------------------------------------------------

TEST_CASE("a waker that finds nobody parked does nothing") {
    for (const Barrier barrier : kBarriers) {
        std::atomic<std::uint32_t> parked{0};
        CHECK_FALSE(wake_if_parked(parked, barrier));
        CHECK_FALSE(wake(parked));
        CHECK(parked.load() == 0);
    }
}

TEST_CASE("a waker resets the word and says that it woke somebody, once") {
    for (const Barrier barrier : kBarriers) {
        std::atomic<std::uint32_t> parked{1};
        CHECK(wake_if_parked(parked, barrier));
        CHECK(parked.load() == 0);
        CHECK_FALSE(wake_if_parked(parked, barrier));
    }
}

TEST_CASE("a word that the peer scribbled on counts as parked") {
    std::atomic<std::uint32_t> parked{0xdeadbeef};
    CHECK(wake_if_parked(parked, Barrier::locked));
    CHECK(parked.load() == 0);
}

// ---- parking -------------------------------------------------------------------------------------------------------------

TEST_CASE("whoever parks announces it, then looks again, and does not sleep if there is work") {
    for (const Barrier barrier : kBarriers) {
        std::atomic<std::uint32_t> parked{0};
        std::uint32_t seen = 99;
        int looks = 0;
        const Parked result = park(parked, barrier, kLong, [&] {
            ++looks;
            seen = parked.load();
            return true;
        });
        CHECK(result == Parked::saw_work);
        CHECK(looks == 1);
        CHECK(seen == 1);
        CHECK(parked.load() == 0);
    }
}

TEST_CASE("a wake between the second look and the sleep prevents the sleep") {
    for (const Barrier barrier : kBarriers) {
        std::atomic<std::uint32_t> parked{0};
        const Parked result = park(parked, barrier, kLong, [&] {
            REQUIRE(wake_if_parked(parked, barrier));
            return false;
        });
        CHECK(result == Parked::woken);
        CHECK(parked.load() == 0);
    }
}

TEST_CASE("a park without a wake ends with its slice") {
    for (const Barrier barrier : kBarriers) {
        std::atomic<std::uint32_t> parked{0};
        const std::uint64_t before = now_ns();
        CHECK(park(parked, barrier, 20 * kMillisecond, never) == Parked::slice_over);
        CHECK(now_ns() - before >= 20 * kMillisecond);
        CHECK(parked.load() == 0);
    }
}

// What a core that membarrier left out looks like from here: the waker's store comes into sight after our look, and it has
// looked at the word before that was set.
TEST_CASE("a sleep after a membarrier does not last because the barrier missed the waker") {
    std::atomic<std::uint32_t> parked{0};
    int looks = 0;
    const auto look = [&] { return ++looks > 1; };
    CHECK(park(parked, Barrier::membarrier, 2'000 * kMillisecond, look) == Parked::found_late);
    CHECK(looks == 2);
    CHECK(parked.load() == 0);
    looks = 0;
    CHECK(park(parked, Barrier::locked, 20 * kMillisecond, look) == Parked::slice_over);  // no such mistake is possible
}

TEST_CASE("a slice longer than a second sleeps for whole seconds too") {
    std::atomic<std::uint32_t> parked{0};
    const std::uint64_t before = now_ns();
    CHECK(park(parked, Barrier::locked, 1'010 * kMillisecond, never) == Parked::slice_over);
    CHECK(now_ns() - before >= 1'010 * kMillisecond);
}

TEST_CASE("a sleeper is woken") {
    for (const Barrier barrier : kBarriers) {
        std::atomic<std::uint32_t> parked{0};
        std::atomic<bool> done{false};
        Parked result = Parked::saw_work;
        std::thread sleeper([&] {
            result = park(parked, barrier, kLong, never);
            done = true;
        });
        REQUIRE(eventually([&] { return parked.load() == 1; }));
        sleep_us(2000);
        const bool woke = wake(parked);
        const bool ended = eventually([&] { return done.load(); }, 20'000);
        wake(parked);
        sleeper.join();
        CHECK(woke);
        CHECK(ended);
        CHECK(result == Parked::woken);
        CHECK(parked.load() == 0);
    }
}

TEST_CASE("one wake ends the sleep of everybody on the word") {
    std::atomic<std::uint32_t> parked{0};
    std::atomic<int> asleep{0}, done{0};
    const auto sleep = [&] {
        ++asleep;
        (void)park(parked, Barrier::locked, kLong, never);
        ++done;
    };
    std::thread first(sleep), second(sleep);
    REQUIRE(eventually([&] { return asleep == 2 && parked.load() == 1; }));
    sleep_us(50'000);  // both in the kernel, or about to find the word changed
    wake(parked);
    const bool ended = eventually([&] { return done == 2; }, 20'000);
    while (done != 2) wake(parked), parked.store(0), ::syscall(SYS_futex, &parked, FUTEX_WAKE, 9, nullptr, nullptr, 0);
    first.join();
    second.join();
    CHECK(ended);
}

// Two mappings of one memory stand for two processes: a private futex would be keyed by the address.
TEST_CASE("a wake reaches a sleeper that knows the word under another address") {
    RingSegment ours = RingSegment::create(64);
    RingSegment theirs = RingSegment::attach(Descriptor(::fcntl(ours.descriptor(), F_DUPFD_CLOEXEC, 0)), 64);
    auto& parked = ours.header()->consumer_parked;
    std::atomic<bool> done{false};
    std::thread sleeper([&] {
        (void)park(theirs.header()->consumer_parked, Barrier::locked, kLong, never);
        done = true;
    });
    REQUIRE(eventually([&] { return parked.load() == 1; }));
    sleep_us(50'000);
    wake(parked);
    const bool ended = eventually([&] { return done.load(); }, 20'000);
    while (!done)
        ::syscall(SYS_futex, &theirs.header()->consumer_parked, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, nullptr, nullptr,
                  0);
    sleeper.join();
    CHECK(ended);
}

TEST_CASE("a signal ends a sleep, and the sleeper is told") {
    const Interrupting interrupting;
    std::atomic<std::uint32_t> parked{0};
    std::atomic<bool> done{false};
    Parked result = Parked::saw_work;
    std::thread sleeper([&] {
        result = park(parked, Barrier::locked, kLong, never);
        done = true;
    });
    // Until it has hit the sleep itself: one that comes before is handled and gone.
    const bool ended = eventually([&] {
        ::pthread_kill(sleeper.native_handle(), SIGUSR1);
        sleep_us(1000);
        return done.load();
    });
    sleeper.join();
    CHECK(ended);
    CHECK(result == Parked::interrupted);
    CHECK(parked.load() == 0);
}

// ---- spinning ------------------------------------------------------------------------------------------------------------

TEST_CASE("a spin ends with the work, or with its time") {
    int looks = 0;
    CHECK(spin(kLong, [&] { return ++looks == 1000; }));
    CHECK(looks == 1000);
    const std::uint64_t before = now_ns();
    CHECK_FALSE(spin(kMillisecond, never));
    CHECK(now_ns() - before >= kMillisecond);
    looks = 0;
    CHECK_FALSE(spin(0, [&] { return ++looks < 0; }));
    CHECK(looks > 0);  // at least one look in any case
}

TEST_CASE("a spin that pays doubles the budget up to 50 us, one that fails halves it") {
    SpinBudget budget;
    CHECK(budget.next(0) == 50'000);
    budget.paid();
    CHECK(budget.next(0) == 50'000);
    budget.failed();
    CHECK(budget.next(0) == 25'000);
    budget.paid();
    CHECK(budget.next(0) == 50'000);
}

TEST_CASE("below 1 us there is no spin, except for a whole one every 2 ms, which may bring it back") {
    SpinBudget budget;
    for (int i = 0; i < 20; ++i) budget.failed();
    CHECK(budget.budget() == 0);
    budget.slept(true);
    std::uint64_t now = 1'000 * kMillisecond, probes = 0;
    for (int i = 0; i < 1000; ++i, now += kMillisecond / 10) {  // 100 ms
        const std::uint64_t next = budget.next(now);
        REQUIRE((next == 0 || next == 50'000));
        probes += next != 0;
        if (next != 0) budget.failed();
    }
    CHECK(probes == 50);
    for (int i = 0; i < 6; ++i) budget.paid();
    CHECK(budget.next(now) == 50'000);
}

TEST_CASE("whoever sleeps and is not woken does not spin again before the next sleep") {
    SpinBudget budget;
    for (int i = 0; i < 20; ++i) budget.failed();
    std::uint64_t now = 1'000 * kMillisecond;
    for (int i = 0; i < 100; ++i) {
        REQUIRE(budget.next(now) == 0);
        budget.slept(false);
        now += kSlice;
    }
    budget.slept(true);
    CHECK(budget.next(now) == 50'000);
}

// Both have given up spinning, and answer at once when they are awake: whoever spins for as long as a wake-up takes finds the other.
TEST_CASE("two that answer each other find back to spinning after a busy moment") {
    SpinBudget budgets[2];
    for (SpinBudget& budget : budgets) {
        for (int i = 0; i < 20; ++i) budget.failed();
        budget.slept(true);
    }
    std::uint64_t now = 1'000 * kMillisecond;
    const std::uint64_t end = now + 20 * kMillisecond;
    bool asleep[2] = {true, true};
    for (int side = 0; now < end; side ^= 1) {  // this side waits for the other's answer
        const std::uint64_t answer = asleep[side ^ 1] ? 30'000 : 100;
        const std::uint64_t spun = budgets[side].next(now);
        asleep[side] = spun < answer;
        if (spun != 0) asleep[side] ? budgets[side].failed() : budgets[side].paid();
        if (asleep[side]) budgets[side].slept(true);
        now += answer;
    }
    for (const SpinBudget& budget : budgets) CHECK(budget.budget() == 50'000);
}

// ---- the race ------------------------------------------------------------------------------------------------------------

namespace {

// A sleeper and a waker, with pauses aimed at the window between look and sleep. A sleep that lasts the whole slice although
// there was work before it, and nobody woke it, is a lost wake. Of found_late there may be a few: wait.hpp says why.
struct Race {
    struct alignas(128) Word {
        std::atomic<std::uint64_t> value{0};
    };
    Word work, done;
    alignas(128) std::atomic<std::uint32_t> parked{0};
    alignas(128) std::atomic<bool> stop{false};
    std::uint64_t parks = 0, slept = 0, found_late = 0, lost = 0;

    static void aim(Random& random) {
        const std::uint64_t looks = random.one_in(4) ? random.below(2000) : random.below(60);
        for (std::uint64_t i = 0; i < looks; ++i) cpu_relax();
    }
    void sleeper(Barrier barrier) {
        Random random(21);
        std::uint64_t taken = 0;
        const auto look = [&] {
            return work.value.load(std::memory_order_acquire) != taken || stop.load(std::memory_order_relaxed);
        };
        while (!stop.load(std::memory_order_relaxed)) {
            if (work.value.load(std::memory_order_acquire) != taken) {
                done.value.store(++taken, std::memory_order_release);
                continue;
            }
            aim(random);
            ++parks;
            const Parked result = park(parked, barrier, 3'000 * kMillisecond, look);
            slept += result == Parked::woken;
            found_late += result == Parked::found_late;
            lost += result == Parked::slice_over && work.value.load() != taken;
        }
    }
    void waker(Barrier barrier, std::uint64_t until) {
        Random random(22);
        for (std::uint64_t count = 0; now_ns() < until;) {
            work.value.store(++count, std::memory_order_release);
            wake_if_parked(parked, barrier);
            while (done.value.load(std::memory_order_acquire) != count && now_ns() < until + 10'000 * kMillisecond)
                cpu_relax();
            aim(random);
        }
        stop = true;
        wake(parked);
    }
};

}  // namespace

TEST_CASE("no wake is lost between two threads, in either form of the barrier") {
    for (const Barrier barrier : kBarriers) {
        REQUIRE(register_membarrier());
        Race race;
        std::thread sleeper([&] { race.sleeper(barrier); });
        race.waker(barrier, in_ms(long_form() ? 60'000 : 1'000));
        sleeper.join();
        CHECK(race.lost == 0);
        CHECK(race.found_late <= (barrier == Barrier::locked ? 0 : race.parks / 10));
        CHECK(race.parks > 100);
    }
}

#if !TACHYON_TEST_TSAN
TEST_CASE("no wake is lost between two processes, in either form of the barrier") {
    for (const Barrier barrier : kBarriers) {
        const Shared<Race> race;
        REQUIRE(register_membarrier());
        Child child([&] {
            TACHYON_CHILD_CHECK(register_membarrier());
            race->sleeper(barrier);
            return 0;
        });
        race->waker(barrier, in_ms(long_form() ? 60'000 : 1'000));
        CHECK(child.wait() == 0);
        CHECK(race->lost == 0);
        CHECK(race->found_late <= (barrier == Barrier::locked ? 0 : race->parks / 10));
        CHECK(race->parks > 100);
    }
}
#endif
