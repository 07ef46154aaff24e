// What a wait on a bus ends with, and who may end it.
#include <pthread.h>

#include <vector>

#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a wait that has something to find returns at once, and one whose time is over does not wait") {
    BusPair pair = make_pair(128);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    CHECK(pair.first->wait_writable(1, kNever) == Status::ok);
    CHECK(pair.second->wait_readable(kNever) == Status::ok);
    CHECK(pair.second->wait_readable(0) == Status::ok);
    REQUIRE(take_one(*pair.second, 1) == Status::ok);
    CHECK(pair.second->wait_readable(0) == Status::empty);
    REQUIRE(send_one(*pair.first, 2) == Status::ok);
    REQUIRE(send_one(*pair.first, 3) == Status::ok);
    CHECK(pair.first->wait_writable(1, 0) == Status::full);
    CHECK(pair.first->stats().parks == 0);
    CHECK(pair.second->stats().parks == 0);
}

TEST_CASE("a wait ends with its slice, so that its caller can look at the clock and at signals") {
    for (const bool pure_spin : {false, true}) {
        BusPair pair = make_pair(64);
        pair.first->set_polling_mode(pure_spin);
        pair.second->set_polling_mode(pure_spin);
        CHECK(pair.second->wait_readable(kNever) == Status::empty);
        REQUIRE(send_one(*pair.first, 1) == Status::ok);
        CHECK(pair.first->wait_writable(1, kNever) == Status::full);
        CHECK((pair.first->stats().parks == 0) == pure_spin);
        CHECK((pair.second->stats().parks == 0) == pure_spin);
        const std::uint64_t until = in_ms(10);
        CHECK(pair.first->wait_writable(1, until) == Status::full);
        CHECK(now_ns() >= until);
    }
}

TEST_CASE("waiting for a message hands back what was released before") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    REQUIRE(take_one(*pair.second, 1) == Status::ok);
    CHECK(pair.second->wait_readable(0) == Status::empty);
    CHECK(pair.header->read_position.load() == 64);
}

TEST_CASE("a message ends the wait of a consumer, room that of a producer, in both forms of the barrier") {
    for (const Barrier barrier : kBarriers) {
        for (const std::uint64_t size : {std::uint64_t{40}, std::uint64_t{1000}}) {
            BusPair pair = make_pair(1024, barrier);
            constexpr std::uint64_t kMessages = 300;
            std::atomic<int> failures{0};
            std::thread consumer([&] {
                Random random(1);
                for (std::uint64_t i = 1; i <= kMessages; ++i) {
                    if (random.one_in(4)) sleep_us(200);
                    Frame frame{};
                    const bool right = receive(*pair.second, frame, in_ms(30'000)) == Status::ok &&
                                       check_message(frame, i) == nullptr && pair.second->release(frame) == Status::ok;
                    if (!right) {
                        ++failures;
                        return;
                    }
                }
            });
            Random random(2);
            std::vector<std::uint8_t> bytes(size + 8);
            for (std::uint64_t i = 1; i <= kMessages && failures == 0; ++i) {
                if (random.one_in(4)) sleep_us(200);
                write_message(bytes.data(), size, size, i);
                const Status status =
                    send(*pair.first, bytes.data(), size, static_cast<std::uint32_t>(i), i, in_ms(30'000));
                if (status != Status::ok) ++failures;
            }
            consumer.join();
            CHECK(failures == 0);
            CHECK(pair.first->stats().parks + pair.second->stats().parks > 0);
        }
    }
}

TEST_CASE("both sides may wait for the first message, and either may then send it") {
    BusPair pair = make_pair(4096);
    int woken = 0;
    for (int round = 0; round < 40 && woken == 0; ++round) {
        pair = make_pair(4096);
        std::atomic<int> result{-1};
        std::thread waiter([&] { result = static_cast<int>(pair.second->wait_readable(kNever)); });
        REQUIRE(eventually([&] { return pair.header->consumer_parked.load() == 1 || result >= 0; }));
        // This side waits on the same word for a while, and gives up before the other does.
        CHECK(pair.first->wait_readable(in_ms(5)) != Status::corrupt);
        CHECK(send_one(*pair.first, 1) == Status::ok);
        waiter.join();
        woken += result == static_cast<int>(Status::ok);
        CHECK(take_one(*pair.second, 1) == Status::ok);
    }
    CHECK(woken > 0);  // and not only the end of the slice
}

TEST_CASE("a signal ends a wait, and its caller is told") {
    struct sigaction action{}, before{};
    action.sa_handler = [](int) {};
    REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
    for (const bool writing : {false, true}) {
        BusPair pair = make_pair(64);
        if (writing) REQUIRE(send_one(*pair.first, 1) == Status::ok);
        std::atomic<bool> interrupted{false}, stop{false};
        std::thread waiter([&] {
            while (!stop && !interrupted) {
                const Status status =
                    writing ? pair.first->wait_writable(1, kNever) : pair.second->wait_readable(kNever);
                if (status == Status::interrupted) interrupted = true;
            }
        });
        const bool told = eventually([&] {
            if (!interrupted) ::pthread_kill(waiter.native_handle(), SIGUSR1);
            sleep_us(1000);
            return interrupted.load();
        });
        stop = true;
        waiter.join();
        CHECK(told);
    }
    ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("request_close from another thread ends a wait, parked or spinning, for a message or for room") {
    for (const bool pure_spin : {false, true}) {
        for (const bool writing : {false, true}) {
            BusPair pair = make_pair(64);
            if (writing) REQUIRE(send_one(*pair.first, 1) == Status::ok);
            Bus& bus = writing ? *pair.first : *pair.second;
            bus.set_polling_mode(pure_spin);
            std::atomic<int> result{-1};
            std::atomic<bool> waiting{false};
            std::thread waiter([&] {
                Status status = Status::empty;
                while (status != Status::closed) {
                    waiting = true;
                    status = writing ? bus.wait_writable(1, kNever) : bus.wait_readable(kNever);
                }
                result = static_cast<int>(status);
            });
            CHECK(eventually([&] { return waiting.load(); }));
            sleep_us(3000);
            bus.request_close();
            CHECK(eventually([&] { return result >= 0; }));
            waiter.join();
            CHECK(bus.state() == Status::ok);  // asked for, not done
            CHECK((writing ? bus.wait_writable(1, kNever) : bus.wait_readable(kNever)) == Status::closed);
            bus.close();
            CHECK(bus.state() == Status::closed);
        }
    }
}

// TSan looks at this one.
TEST_CASE("stats may be asked for while another thread waits") {
    BusPair pair = make_pair(64);
    std::thread waiter([&] {
        while (pair.second->wait_readable(kNever) != Status::closed) {}
    });
    CHECK(eventually([&] { return pair.second->stats().parks > 1; }));
    pair.second->request_close();
    waiter.join();
}

// Both would end with their slice in any case. That they end earlier shows in one round of many, however busy the machine is.
TEST_CASE("a close wakes a peer that is parked") {
    for (const bool writing : {false, true}) {
        bool woken = false;
        for (int round = 0; round < 40 && !woken; ++round) {
            BusPair pair = make_pair(64);
            if (writing) REQUIRE(send_one(*pair.first, 1) == Status::ok);
            Bus& waiting = writing ? *pair.first : *pair.second;
            Bus& closing = writing ? *pair.second : *pair.first;
            auto& parked = writing ? pair.header->producer_parked : pair.header->consumer_parked;
            std::atomic<int> result{-1};
            std::thread waiter([&] {
                result = static_cast<int>(writing ? waiting.wait_writable(1, kNever) : waiting.wait_readable(kNever));
            });
            CHECK(eventually([&] { return parked.load() == 1 || result >= 0; }));
            sleep_us(1000);
            closing.close();
            waiter.join();
            woken = result == static_cast<int>(Status::ok);
        }
        CHECK(woken);
    }
}

TEST_CASE("request_close ends a spin before its slice is over") {
    BusPair pair = make_pair(64);
    std::uint64_t shortest = kNever;
    for (int round = 0; round < 40 && shortest > kSlice / 2; ++round) {
        pair = make_pair(64);
        pair.second->set_polling_mode(true);
        std::atomic<bool> waiting{false};
        std::thread closer([&] {
            while (!waiting) cpu_relax();
            sleep_us(1000);
            pair.second->request_close();
        });
        const std::uint64_t before = now_ns();
        waiting = true;
        CHECK(pair.second->wait_readable(kNever) == Status::closed);
        shortest = std::min(shortest, now_ns() - before);
        closer.join();
    }
    CHECK(shortest <= kSlice / 2);
}
