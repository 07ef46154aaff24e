// How a handshake should go. What may go wrong stands in handshake_*.tests.cpp.
#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a listener and a connector find each other and share memory") {
    const Folder folder;
    const Held before;
    for (const Kind kind : {Kind::bus, Kind::rpc}) {
        ListenOptions options = listen_options(kCapacity);
        options.kind = kind;
        if (kind == Kind::rpc) options.capacities = {64, 8192};
        Aside listener = listening(folder.file(), options);
        ConnectOptions wanted = connect_options();
        wanted.kind = kind;
        const Established theirs = connect(folder.file(), wanted);
        Outcome& outcome = listener.join();
        REQUIRE(outcome.established);
        const Established& ours = *outcome.established;
        CHECK(ours.connection.side() == Side::listener);
        CHECK(theirs.connection.side() == Side::connector);
        for (const Connection* connection : {&ours.connection, &theirs.connection}) {
            CHECK(connection->peer_pid() == ::getpid());
            CHECK(connection->peer_uid() == ::geteuid());
            CHECK_FALSE(connection->hung_up());
            CHECK((::fcntl(connection->socket(), F_GETFD) & FD_CLOEXEC) != 0);
        }
        CHECK(ours.connection.barrier() == theirs.connection.barrier());
        CHECK((ours.connection.barrier() == Barrier::membarrier) == register_membarrier());
        REQUIRE(ours.segments.size() == options.capacities.size());
        REQUIRE(theirs.segments.size() == options.capacities.size());
        for (std::size_t i = 0; i < ours.segments.size(); ++i) {
            CHECK(ours.segments[i].bytes() == ring_segment_bytes(options.capacities[i]));
            CHECK(theirs.segments[i].bytes() == ring_segment_bytes(options.capacities[i]));
            CHECK(ours.segments[i].descriptor() == -1);
            CHECK(theirs.segments[i].descriptor() == -1);
            header_of(ours.segments[i])->read_position.store(40 + i);
            CHECK(header_of(theirs.segments[i])->read_position.load() == 40 + i);
        }
        CHECK(folder.entries().empty());
        CHECK(Held{}.descriptors <= before.descriptors + 4);  // a socket and a pidfd each
    }
    CHECK(Held{} == before);
}

TEST_CASE("the listener can tell by the name of its socket what a connector is") {
    const Folder folder;
    Aside listener = listening(folder.file());
    const Established client = connect(folder.file(), connect_options());
    Outcome& outcome = listener.join();
    REQUIRE(outcome.established);
    sockaddr_un name{};
    socklen_t length = sizeof name;
    REQUIRE(::getpeername(outcome.established->connection.socket(), reinterpret_cast<sockaddr*>(&name), &length) == 0);
    REQUIRE(length > offsetof(sockaddr_un, sun_path) + kConnectorName.size());
    CHECK(std::string_view(name.sun_path, kConnectorName.size()) == kConnectorName);
}

TEST_CASE("a stale socket file is no obstacle") {
    const Folder folder;
    raw_listener(folder.file()).reset();
    REQUIRE(exists(folder.file()));
    Aside listener = listening(folder.file());
    check_served(listener, folder.file());
}

TEST_CASE("without membarrier on either side both use the locked form") {
    const Folder folder;
    SECTION("the client cannot") {
        Aside listener = listening(folder.file());
        const Descriptor client = raw_client(folder.file());
        const Hello hello = good_hello();
        REQUIRE(send_raw(client.get(), &hello, sizeof hello));
        REQUIRE(receive_raw(client.get()).complete);
        REQUIRE(send_raw(client.get(), "R", 1));
        REQUIRE(listener.join().established);
        CHECK(listener.join().established->connection.barrier() == Barrier::locked);
    }
    SECTION("the listener cannot") {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file());
        const Descriptor socket = raw_accept(listener);
        const std::uint32_t abilities = receive_raw(socket.get()).hello.abilities;
        REQUIRE((abilities & kAbilityMembarrier) == (register_membarrier() ? kAbilityMembarrier : 0));
        const RingSegment segment = RingSegment::create(kCapacity);
        const Hello hello = offer();
        REQUIRE(send_raw(socket.get(), &hello, sizeof hello, {segment.descriptor()}));
        REQUIRE(send_raw(socket.get(), "R", 1));
        REQUIRE(client.join().established);
        CHECK(client.join().established->connection.barrier() == Barrier::locked);
    }
}

TEST_CASE("a hello may arrive byte by byte") {
    const Folder folder;
    Aside listener = listening(folder.file());
    const Descriptor client = raw_client(folder.file());
    const Hello hello = good_hello();
    for (std::size_t i = 0; i < sizeof hello; ++i) {
        REQUIRE(send_raw(client.get(), reinterpret_cast<const char*>(&hello) + i, 1));
        if (i % 16 == 0) sleep_us(500);
    }
    const Received answer = receive_raw(client.get());
    REQUIRE(answer.complete);
    CHECK(answer.hello.verdict == static_cast<std::uint32_t>(Verdict::accepted));
    CHECK(answer.hello.segments == 1);
    CHECK(answer.hello.offers[0].capacity == kCapacity);
    REQUIRE(answer.descriptors.size() == 1);
    REQUIRE(send_raw(client.get(), "R", 1));
    char ready = 0;
    REQUIRE(::recv(client.get(), &ready, 1, 0) == 1);
    CHECK(ready == kReady);
    CHECK_FALSE(exists(folder.file()));  // whoever has been let in sees the path gone
    CHECK(listener.join().established);
}

TEST_CASE("many connectors and one listener after the other: everybody is served once") {
    const Folder folder;
    const Held before;
    {
        constexpr int kPairs = 5;
        std::atomic<int> connected{0};
        std::vector<std::thread> threads;
        for (int i = 0; i < kPairs; ++i) {
            threads.emplace_back([&] {
                try {
                    const Established client = connect(folder.file(), connect_options());
                    ++connected;
                } catch (const SetupError& error) {
                    std::fprintf(stderr, "connector: %s\n", error.what());
                }
            });
        }
        int listened = 0;
        for (int i = 0; i < kPairs; ++i) {
            try {
                const Established server = listen(folder.file(), listen_options(kCapacity));
                ++listened;
            } catch (const SetupError& error) {
                UNSCOPED_INFO(error.what());
            }
        }
        for (std::thread& thread : threads) thread.join();
        CHECK(listened == kPairs);
        CHECK(connected == kPairs);
    }
    CHECK(folder.entries().empty());
    CHECK(Held{} == before);
}
