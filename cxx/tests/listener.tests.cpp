// One listener, many clients. What a single client may do wrong stands in handshake_*.tests.cpp.
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <optional>

#include "catch.hpp"
#include "listener_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a listener lets in one client after another, each with memory of its own") {
    const Held before;
    {
        const Folder folder;
        Listener listener(folder.file(), many());
        std::vector<Established> here, there;
        for (int i = 0; i < 3; ++i) {
            Connecting connecting(folder.file());
            here.push_back(listener.accept(in_ms(30'000)));
            there.push_back(std::move(connecting.join()));
            CHECK(exists(folder.file()));
        }
        for (std::uint32_t i = 0; i < 3; ++i) header_of(here[i].segments[0])->producer_parked.store(i + 10);
        for (std::uint32_t i = 0; i < 3; ++i) CHECK(header_of(there[i].segments[0])->producer_parked.load() == i + 10);
        CHECK_FALSE(here[0].connection.hung_up());
        there[0].connection.shut_down();
        CHECK(eventually([&] { return here[0].connection.hung_up(); }));
        CHECK_FALSE(here[1].connection.hung_up());
    }
    CHECK(Held() == before);
}

TEST_CASE("the socket file goes with the listener, and what was let in stays") {
    const Folder folder;
    std::optional<Listener> listener;
    listener.emplace(folder.file(), many());
    Connecting connecting(folder.file());
    const Established here = listener->accept(in_ms(30'000));
    const Established& there = connecting.join();
    listener.reset();
    CHECK_FALSE(exists(folder.file()));
    CHECK_FALSE(there.connection.hung_up());
    CHECK_FALSE(here.connection.hung_up());
}

TEST_CASE("a client of the other kind is told so and does not end a listener for many") {
    const Folder folder;
    Listener listener(folder.file(), many(Kind::rpc));
    Connecting wrong(folder.file(), Kind::bus);
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return wrong.done();
    }));
    CHECK(wrong.error() == EPROTOTYPE);
    Connecting right(folder.file(), Kind::rpc);
    const Established here = listener.accept(in_ms(30'000));
    CHECK(here.segments.size() == 2);
    CHECK(right.join().segments.size() == 2);
}

TEST_CASE("clients that take their offer and say no more keep nobody waiting") {
    const Folder folder;
    Listener listener(folder.file(), many());
    std::vector<Descriptor> stalled;
    for (int i = 0; i < 5; ++i) {
        stalled.push_back(greet(folder.file()));
        REQUIRE(stalled.back());
    }
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(stalled.back().get(), 0);  // the offer
    }));
    Connecting connecting(folder.file());
    listener.accept(in_ms(30'000));
    connecting.join();
    for (const Descriptor& each : stalled) {
        pollfd entry{each.get(), POLLRDHUP, 0};
        CHECK(::poll(&entry, 1, 0) == 0);  // it was not given up to make room
    }
}

TEST_CASE("a listener's descriptor is readable when there is something to do") {
    const Folder folder;
    Listener listener(folder.file(), many());
    CHECK_FALSE(listener.try_accept());
    CHECK_FALSE(readable(listener.descriptor(), 0));
    Connecting connecting(folder.file());
    std::optional<Established> here;
    while (!here && readable(listener.descriptor(), 30'000)) here = listener.try_accept();
    REQUIRE(here);
    Established& there = connecting.join();
    CHECK_FALSE(readable(listener.descriptor(), 0));
    there.connection.shut_down();  // no business of the listener's any more
    CHECK(eventually([&] { return here->connection.hung_up(); }));
    CHECK_FALSE(readable(listener.descriptor(), 0));
}

TEST_CASE(
    "a listener's descriptor says when the time of clients that take their offer and stall is over, and only once") {
    const Folder folder;
    Listener listener(folder.file(), many());
    Listener other(folder.file("other"), many());
    const Descriptor last = greet(folder.file("other"));
    CHECK(eventually([&] {
        CHECK_FALSE(other.try_accept());
        return readable(last.get(), 0);
    }));
    std::vector<Descriptor> stalled;
    for (int i = 0; i < 6; ++i) {  // all the offers that one process may have open at once
        stalled.push_back(greet(folder.file()));
        REQUIRE(stalled.back());
        CHECK(eventually([&] {
            CHECK_FALSE(listener.try_accept());
            return readable(stalled.back().get(), 0);
        }));
    }
    Connecting connecting(folder.file());
    std::optional<Established> here;
    // As a loop does that has nothing else to go by.
    while (!here && readable(listener.descriptor(), 30'000)) here = listener.try_accept();
    REQUIRE(here);
    connecting.join();
    stalled.clear();
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return !readable(listener.descriptor(), 0);
    }));
    // The other one's last client was dropped for its time.
    CHECK(eventually([&] {
        CHECK_FALSE(other.try_accept());
        return hung_up(last.get());
    }));
    CHECK_FALSE(readable(other.descriptor(), 0));
}

TEST_CASE("clients that come together are all let in by a loop that takes one each time the descriptor is readable") {
    const Folder folder;
    Listener listener(folder.file(), many());
    std::vector<std::unique_ptr<Connecting>> connecting;
    for (int i = 0; i < 40; ++i) connecting.push_back(std::make_unique<Connecting>(folder.file()));
    std::vector<Established> here;
    while (here.size() < connecting.size() && readable(listener.descriptor(), 30'000)) {
        if (auto next = listener.try_accept()) here.push_back(std::move(*next));
    }
    CHECK(here.size() == connecting.size());
    if (here.size() == connecting.size()) {
        for (const auto& each : connecting) each->join();
    }
}

TEST_CASE("accept ends with its deadline or by interrupt, and may be called again") {
    const Folder folder;
    Listener listener(folder.file(), many());
    try {
        listener.accept(in_ms(20));
        FAIL("nobody was there");
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::timed_out);
    }
    try {
        listener.accept(kNever, Interrupt{[](void*) { return true; }, nullptr});
        FAIL("it was interrupted");
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::interrupted);
    }
    Connecting connecting(folder.file());
    listener.accept(in_ms(30'000));
    connecting.join();
}

TEST_CASE("a second listener at a live path is refused") {
    const Folder folder;
    const Listener listener(folder.file(), many());
    CHECK_THROWS_AS(Listener(folder.file(), many()), SetupError);
    CHECK(exists(folder.file()));
}

TEST_CASE("without memory for one more client that client is dropped, and the next one finds the listener alive") {
    const Folder folder;
    Listener listener(folder.file(), many());
    Connecting first(folder.file());
    const Established here = listener.accept(in_ms(30'000));
    first.join();
    {
        rlimit before{};
        ::getrlimit(RLIMIT_NOFILE, &before);
        const Descriptor client = greet(folder.file());
        // Numbers for the socket and its pidfd, none for the memory.
        rlimit few{static_cast<rlim_t>(::dup(0)) + 2, before.rlim_max};
        ::close(static_cast<int>(few.rlim_cur) - 2);
        ::setrlimit(RLIMIT_NOFILE, &few);
        bool refused = false;
        try {
            for (const std::uint64_t until = in_ms(20'000); !refused && now_ns() < until;) {
                if (listener.try_accept()) break;
            }
        } catch (const SetupError&) {
            refused = true;
        }
        ::setrlimit(RLIMIT_NOFILE, &before);
        CHECK(refused);
        pollfd entry{client.get(), POLLRDHUP, 0};
        CHECK(::poll(&entry, 1, 30'000) == 1);
    }
    Connecting second(folder.file());
    listener.accept(in_ms(30'000));
    second.join();
}
