// Two processes, and forks.
#include <vector>

#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

#if !TACHYON_TEST_TSAN

TEST_CASE("two processes exchange messages over two buses and part in peace") {
    const Folder folder;
    constexpr std::uint64_t kMessages = 2000;
    Child echo([&] {
        const auto in = Bus::connect(folder.file("there"), connect_options());
        const auto out = Bus::connect(folder.file("back"), connect_options());
        for (std::uint64_t count = 0;; ++count) {
            Frame frame{};
            const Status status = receive(*in, frame, in_ms(30'000));
            if (status == Status::peer_closed) {
                TACHYON_CHILD_CHECK(count == kMessages);
                return 0;
            }
            TACHYON_CHILD_CHECK(status == Status::ok);
            TACHYON_CHILD_CHECK(send(*out, frame.payload, frame.size, frame.type_id, frame.correlation_id,
                                     in_ms(30'000)) == Status::ok);
            TACHYON_CHILD_CHECK(in->release(frame) == Status::ok);
        }
    });
    const auto there = Bus::listen(folder.file("there"), listen_options(512));
    const auto back = Bus::listen(folder.file("back"), listen_options(1024));
    CHECK(there->peer_pid() == echo.pid());
    Random random(51);
    std::vector<std::uint8_t> bytes(600);
    for (std::uint64_t i = 1; i <= kMessages; ++i) {
        const std::uint64_t size = random.below(there->max_message_size() + 1);
        write_message(bytes.data(), size, size, i);
        REQUIRE(send(*there, bytes.data(), size, static_cast<std::uint32_t>(i), i, in_ms(30'000)) == Status::ok);
        Frame frame{};
        REQUIRE(receive(*back, frame, in_ms(30'000)) == Status::ok);
        REQUIRE(frame.size == size);
        REQUIRE(check_message(frame, i) == nullptr);
        REQUIRE(back->release(frame) == Status::ok);
    }
    there->close();
    CHECK(echo.wait() == 0);
    Frame frame{};
    CHECK(receive(*back, frame, in_ms(30'000)) == Status::peer_closed);
}

TEST_CASE("a forked child has no bus, and the parent's goes on as if there were no child") {
    const Held before;
    {
        BusPair pair = make_pair(4096);
        BusPair undecided = make_pair(4096);
        REQUIRE(send_one(*pair.first, 1) == Status::ok);
        Frame frame{};
        REQUIRE(pair.second->try_peek(frame) == Status::ok);
        std::uint8_t* claimed = nullptr;
        REQUIRE(pair.first->try_claim(200, claimed) == Status::ok);
        write_message(claimed, 200, 200, 2);
        const std::size_t descriptors = count_descriptors();
        Child child([&] {
            // A socket and a pidfd of each of four ends are gone: they would keep the peers from seeing the parent's end.
            TACHYON_CHILD_CHECK(count_descriptors() <= descriptors - 4);
            std::uint8_t* payload = nullptr;
            for (Bus* const bus :
                 {pair.first.get(), pair.second.get(), undecided.first.get(), undecided.second.get()}) {
                Frame other{};
                TACHYON_CHILD_CHECK(bus->state() == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_send("x", 1, 1) == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_send_quietly("x", 1, 1) == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_claim(1, payload) == Status::forked);
                TACHYON_CHILD_CHECK(bus->commit(1, 1) == Status::forked);
                TACHYON_CHILD_CHECK(bus->abort() == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_peek(other) == Status::forked);
                TACHYON_CHILD_CHECK(bus->release(frame) == Status::forked);
                TACHYON_CHILD_CHECK(bus->wait_readable(kNever) == Status::forked);
                TACHYON_CHILD_CHECK(bus->wait_writable(1, kNever) == Status::forked);
                bus->put_back(frame);
                bus->take_back();
                bus->hand_back();
                bus->wake_consumer();
                bus->request_close();
                bus->close();
                TACHYON_CHILD_CHECK(bus->state() == Status::forked);
            }
            pair.first.reset();
            pair.second.reset();
            undecided = {};
            // A child may open its own.
            BusPair own = make_pair(4096);
            TACHYON_CHILD_CHECK(own.first->try_send("x", 1, 1) == Status::ok);
            return 0;
        });
        CHECK(child.wait() == 0);
        CHECK(check_message(frame, 1) == nullptr);
        CHECK(pair.second->release(frame) == Status::ok);
        CHECK(pair.first->commit(200, 2, 2) == Status::ok);
        CHECK(take_one(*pair.second, 2) == Status::ok);
        sleep_us(1000);
        REQUIRE(send_one(*pair.first, 3) == Status::ok);
        CHECK(take_one(*pair.second, 3) == Status::ok);
        CHECK(pair.second->try_peek(frame) == Status::empty);
        CHECK(send_one(*undecided.second, 1) == Status::ok);
        CHECK(take_one(*undecided.first, 1) == Status::ok);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a fork while other threads open and close buses leaves both processes able to") {
    std::atomic<bool> stop{false};
    std::thread worker([&] {
        while (!stop) BusPair pair = make_pair(64);
    });
    for (int i = 0; i < 20; ++i) {
        // Nothing in the child but what may be used after a fork of a process with threads, and the list of buses.
        Child child([] { return 0; }, 30);
        REQUIRE(child.wait() == 0);
    }
    stop = true;
    worker.join();
    BusPair pair = make_pair(64);
    CHECK(send_one(*pair.first, 1) == Status::ok);
}

TEST_CASE("a dead peer whose child lives on is dead, and a closed one closed") {
    for (const bool closes : {false, true}) {
        const Folder folder;
        const Shared<std::atomic<pid_t>> grandchild;
        Child child([&] {
            const auto bus = Bus::connect(folder.file(), connect_options());
            TACHYON_CHILD_CHECK(bus->try_send("abc", 3, 1, 1) == Status::ok);
            const pid_t pid = ::fork();
            if (pid == 0) {
                ::alarm(60);
                ::pause();
                ::_exit(0);
            }
            *grandchild = pid;
            if (closes) bus->close();
            ::pause();
            return 0;
        });
        const auto bus = Bus::listen(folder.file(), listen_options());
        REQUIRE(eventually([&] { return *grandchild != 0; }));
        Frame frame{};
        REQUIRE(receive(*bus, frame, in_ms(30'000)) == Status::ok);
        REQUIRE(bus->release(frame) == Status::ok);
        if (!closes) {
            CHECK(receive(*bus, frame, in_ms(100)) == Status::empty);
            child.kill();
        }
        CHECK(receive(*bus, frame, in_ms(30'000)) == (closes ? Status::peer_closed : Status::peer_dead));
        ::kill(*grandchild, SIGKILL);
    }
}

TEST_CASE("a peer that exits without a close is dead, and nothing it committed is lost") {
    const Folder folder;
    Child child([&] {
        // Not destroyed: the process ends under it.
        Bus* const bus = Bus::connect(folder.file(), connect_options()).release();
        for (std::uint64_t i = 1; i <= 20; ++i) {
            std::uint8_t bytes[64];
            write_message(bytes, 40, 40, i);
            TACHYON_CHILD_CHECK(bus->try_send(bytes, 40, static_cast<std::uint32_t>(i), i) == Status::ok);
        }
        return 0;
    });
    const auto bus = Bus::listen(folder.file(), listen_options());
    CHECK(child.wait() == 0);
    for (std::uint64_t i = 1; i <= 20; ++i) REQUIRE(take_one(*bus, i) == Status::ok);
    Frame frame{};
    CHECK(receive(*bus, frame, in_ms(30'000)) == Status::peer_dead);
}

#endif
