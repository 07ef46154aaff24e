#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/port/waiting.hpp"

using namespace tachyon;
using namespace tachyon::test;
using namespace std::chrono_literals;

namespace {

// A wait that writes down what it is asked, and answers as told. Attempts fail until `succeeds_at` of them were made.
struct Script {
    Status attempt() {
        said += 'a';
        return ++attempts >= succeeds_at ? Status::ok : Status::empty;
    }
    bool look(std::uint64_t looks) {
        said += 'l';
        looked = looks;
        return sees;
    }
    std::uint64_t prepare(std::uint64_t until) {
        said += 'p';
        return until;
    }
    Status sleep(std::uint64_t until) {
        said += 's';
        slept_until = until;
        return sleeping();
    }
    [[nodiscard]] bool unfinished() const { return attempts < finished_at; }

    int succeeds_at = 1000;
    int finished_at = 0;
    bool sees = false;
    std::function<Status()> sleeping = [] { return Status::empty; };
    int attempts = 0;
    std::uint64_t looked = 0, slept_until = 0;
    std::string said{};
};

// A lock that writes into the script when it is let go, and taken.
Host host_of(Script& script) {
    return {[](void* context) { static_cast<Script*>(context)->said += '('; },
            [](void* context) { static_cast<Script*>(context)->said += ')'; }, &script};
}

struct Asked {
    int times = 0;
    bool answer = false;
    Interrupt interrupt() {
        return {[](void* context) {
                    ++static_cast<Asked*>(context)->times;
                    return static_cast<Asked*>(context)->answer;
                },
                this};
    }
};

}  // namespace

TEST_CASE("a timeout becomes a deadline, whatever its unit") {
    const std::uint64_t before = now_ns();
    const Waiting soon = 50ms;
    CHECK(soon.deadline >= before + 50 * kMillisecond);
    CHECK(soon.deadline <= now_ns() + 50 * kMillisecond);
    CHECK(Waiting(0ms).deadline == 0);
    CHECK(Waiting(-1s).deadline == 0);
    CHECK(Waiting(std::chrono::duration<double>(0.5)).deadline >= before + 500 * kMillisecond);
    CHECK(Waiting(std::chrono::duration<double, std::nano>(0.1)).deadline >= before);  // little is not nothing
    CHECK(Waiting(std::chrono::hours::max()).deadline == kNever);
    CHECK(Waiting(std::chrono::nanoseconds::max()).deadline == kNever);
    CHECK(Waiting().deadline == kNever);
    CHECK(Waiting::until(7).deadline == 7);
}

TEST_CASE("a wait without time tries once") {
    Script script;
    Waiting waiting = Waiting::until(0);
    waiting.host = host_of(script);
    waiting.looks = waiting.unlocked_looks = 8;
    CHECK(detail::persist(waiting, Status::empty, script) == Status::empty);
    CHECK(script.said == "a");
}

TEST_CASE("a wait whose time is over already tries once more after a sleep of no length") {
    Script script;
    const std::uint64_t past = now_ns() - 1;
    CHECK(detail::persist(Waiting::until(past), Status::empty, script) == Status::empty);
    CHECK(script.said == "apsa");
    CHECK(script.slept_until == past);
}

TEST_CASE("any answer but nothing ends a wait") {
    Script script;
    SECTION("of the first try") {
        script.succeeds_at = 1;
        CHECK(detail::persist({}, Status::empty, script) == Status::ok);
        CHECK(script.said == "a");
    }
    SECTION("of a later one") {
        script.succeeds_at = 3;
        CHECK(detail::persist({}, Status::empty, script) == Status::ok);
        CHECK(script.said == "apsapsa");
    }
    SECTION("of the sleep") {
        const Status end = GENERATE(Status::closed, Status::peer_dead, Status::corrupt, Status::forked);
        script.sleeping = [end] { return end; };
        CHECK(detail::persist({}, Status::empty, script) == end);
        CHECK(script.said == "aps");
    }
    CHECK(script.slept_until == (script.said == "a" ? 0 : kNever));
}

TEST_CASE("what was there when the time was over is still gone through") {
    Script script;
    script.finished_at = 4;
    SECTION("and found") {
        script.succeeds_at = 4;
        CHECK(detail::persist(Waiting::until(0), Status::empty, script) == Status::ok);
    }
    SECTION("or not") { CHECK(detail::persist(Waiting::until(0), Status::empty, script) == Status::empty); }
    CHECK(script.attempts == 4);
}

TEST_CASE("the lock is held for tries and looks and preparations, and let go of for long looks and for sleep") {
    Script script;
    script.succeeds_at = 5;
    Waiting waiting;
    waiting.host = host_of(script);
    SECTION("looks that see nothing") {
        waiting.looks = 8;
        waiting.unlocked_looks = 100;
        CHECK(detail::persist(waiting, Status::empty, script) == Status::ok);
        CHECK(script.said == "alp(l)ap(s)ap(s)ap(s)a");
        CHECK(script.looked == 100);
    }
    SECTION("a look that sees something") {
        waiting.looks = 8;
        waiting.unlocked_looks = 100;
        script.sees = true;
        script.succeeds_at = 2;
        CHECK(detail::persist(waiting, Status::empty, script) == Status::ok);
        CHECK(script.said == "ala");
        CHECK(script.looked == 8);
    }
    SECTION("no looks") {
        CHECK(detail::persist(waiting, Status::empty, script) == Status::ok);
        CHECK(script.said == "ap(s)ap(s)ap(s)ap(s)a");
    }
}

TEST_CASE("a signal is looked at when it came") {
    Script script;
    Asked asked;
    Waiting waiting;
    waiting.interrupt = asked.interrupt();
    script.sleeping = [] { return Status::interrupted; };
    script.succeeds_at = 6;
    SECTION("and the wait goes on") {
        CHECK(detail::persist(waiting, Status::empty, script) == Status::ok);
        CHECK(asked.times == 5);
    }
    SECTION("or ends") {
        asked.answer = true;
        CHECK(detail::persist(waiting, Status::empty, script) == Status::interrupted);
        CHECK(asked.times == 1);
        CHECK(script.said == "aps");
    }
    SECTION("or nobody is asked") {
        waiting.interrupt = {};
        CHECK(detail::persist(waiting, Status::empty, script) == Status::ok);
    }
}

TEST_CASE("signals are looked at every slice, however short the waits, and not more often") {
    Asked asked;
    Waiting waiting;
    waiting.interrupt = asked.interrupt();
    const std::uint64_t start = now_ns();
    SECTION("many short waits") {
        for (int i = 0; i < 100; ++i) {
            Script script;
            script.succeeds_at = 2;
            REQUIRE(detail::persist(waiting, Status::empty, script) == Status::ok);
        }
        const std::uint64_t slices = (now_ns() - start) / (kSlice - kMillisecond);
        CHECK(static_cast<std::uint64_t>(asked.times) <= slices + 1);
    }
    SECTION("waits that add up to several slices") {
        while (now_ns() - start < 4 * kSlice) {
            Script script;
            script.succeeds_at = 2;
            script.sleeping = [] {
                sleep_us(5'000);
                return Status::empty;
            };
            REQUIRE(detail::persist(waiting, Status::empty, script) == Status::ok);
        }
        CHECK(asked.times >= 1);
    }
    SECTION("whole slices") {
        Script script;
        script.succeeds_at = 4;
        script.sleeping = [] {
            sleep_us(50'000);
            return Status::empty;
        };
        REQUIRE(detail::persist(waiting, Status::empty, script) == Status::ok);
        CHECK(asked.times == 3);
    }
}

TEST_CASE("a lock that ends the thread ends the wait") {
    Script script;
    Waiting waiting;
    waiting.host = {[](void*) {}, [](void*) { throw std::runtime_error("the interpreter exits"); }, nullptr};
    CHECK_THROWS_AS(detail::persist(waiting, Status::empty, script), std::runtime_error);
    CHECK(script.said == "aps");
}
