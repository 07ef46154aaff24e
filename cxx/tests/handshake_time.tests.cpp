// How long either side waits, what it can be interrupted in, and what is left of it then: nothing.
#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a listener keeps its deadline, and leaves nothing") {
    const Folder folder;
    const Held before;
    SECTION("nobody comes") {
        const std::uint64_t start = now_ns();
        Aside listener = listening(folder.file(), listen_options(kCapacity, 100));
        CHECK(listener.join().failure == SetupFailure::timed_out);
        CHECK(now_ns() - start >= 100 * kMillisecond);
    }
    SECTION("silent clients come") {
        Aside listener = listening(folder.file(), listen_options(kCapacity, 300));
        const Descriptor first = raw_client(folder.file()), second = raw_client(folder.file());
        CHECK(listener.join().failure == SetupFailure::timed_out);
        CHECK(hangs_up(first.get()));
    }
    SECTION("a client takes the offer and says no more") {
        Aside listener = listening(folder.file(), listen_options(kCapacity, 500));
        const Descriptor client = raw_client(folder.file());
        const Hello hello = good_hello();
        REQUIRE(send_raw(client.get(), &hello, sizeof hello));
        REQUIRE(receive_raw(client.get()).complete);
        CHECK(listener.join().failure == SetupFailure::timed_out);
        CHECK(hangs_up(client.get()));
    }
    SECTION("the deadline has passed already") {
        ListenOptions options = listen_options(kCapacity);
        options.deadline = 0;
        Aside listener = listening(folder.file(), options);
        CHECK(listener.join().failure == SetupFailure::timed_out);
    }
    CHECK(folder.entries().empty());
    CHECK(Held{} == before);
}

TEST_CASE("clients that come faster than they are served do not outlast the deadline") {
    const Folder folder;
    const Held before;
    {
        Aside listener = listening(folder.file(), listen_options(kCapacity, 500));
        std::atomic<bool> stop{false};
        std::vector<std::thread> flood;
        for (int i = 0; i < 4; ++i) {
            flood.emplace_back([&] {
                const sockaddr_un address = make_address(folder.file());
                while (!stop) {
                    const Descriptor socket = make_stream_socket();
                    (void)::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
                }
            });
        }
        const bool ended = eventually([&] { return listener.done(); }, 20'000);
        stop = true;
        for (std::thread& thread : flood) thread.join();
        CHECK(ended);
        CHECK(listener.join().failure == SetupFailure::timed_out);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a listener can be interrupted, and leaves nothing") {
    const Folder folder;
    const Held before;
    SECTION("while nobody comes") {
        Aside listener = listening(folder.file());
        REQUIRE(eventually([&] { return exists(folder.file()); }));
        listener.interrupt();
        CHECK(listener.join().failure == SetupFailure::interrupted);
    }
    SECTION("while a client is silent") {
        Aside listener = listening(folder.file());
        const Descriptor client = raw_client(folder.file());
        listener.interrupt();
        CHECK(listener.join().failure == SetupFailure::interrupted);
        CHECK(hangs_up(client.get()));
    }
    SECTION("with no deadline at all") {
        ListenOptions options = listen_options(kCapacity);
        options.deadline = kNever;
        Aside listener = listening(folder.file(), options);
        REQUIRE(eventually([&] { return exists(folder.file()); }));
        listener.interrupt();
        CHECK(listener.join().failure == SetupFailure::interrupted);
    }
    CHECK(folder.entries().empty());
    CHECK(Held{} == before);
}

TEST_CASE("a listener that cannot have its memory or its path leaves nothing") {
    const Folder folder;
    const Held before;
    {
        ListenOptions options = listen_options(100);
        Aside listener = listening(folder.file(), options);
        CHECK(listener.join().failure == SetupFailure::capacity);
        const Descriptor file(::open(folder.file("file").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        Aside second = listening(folder.file("file"));
        CHECK(second.join().failure == SetupFailure::handshake);
        CHECK(exists(folder.file("file")));
    }
    CHECK_FALSE(exists(folder.file()));
    CHECK(Held{} == before);
}

TEST_CASE("a connector without a timeout tries once") {
    const Folder folder;
    const Held before;
    ConnectOptions options;  // deadline 0
    SECTION("where nothing is") {
        Aside client = connecting(folder.file(), options);
        CHECK(client.join().failure == SetupFailure::handshake);
        CHECK(client.join().error_number == ENOENT);
    }
    SECTION("where nobody listens any more") {
        raw_listener(folder.file()).reset();
        Aside client = connecting(folder.file(), options);
        CHECK(client.join().failure == SetupFailure::handshake);
        CHECK(client.join().error_number == ECONNREFUSED);
        CHECK(exists(folder.file()));  // not its business
    }
    SECTION("where a file is") {
        const Descriptor file(::open(folder.file().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        Aside client = connecting(folder.file(), options);
        CHECK(client.join().failure == SetupFailure::handshake);
    }
    SECTION("where the listener hangs up") {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file(), options);
        raw_accept(listener).reset();
        CHECK(client.join().failure == SetupFailure::handshake);
        CHECK(client.join().error_number == ECONNRESET);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a connector with a timeout waits for a listener, for that long") {
    const Folder folder;
    const Held before;
    SECTION("that never comes") {
        const std::uint64_t start = now_ns();
        Aside client = connecting(folder.file(), connect_options(100));
        CHECK(client.join().failure == SetupFailure::timed_out);
        CHECK(now_ns() - start >= 100 * kMillisecond);
    }
    SECTION("that comes late, over a stale socket") {
        raw_listener(folder.file()).reset();
        Aside client = connecting(folder.file());
        sleep_us(30'000);
        CHECK_FALSE(client.done());
        const Established server = listen(folder.file(), listen_options(kCapacity));
        CHECK(client.join().established);
        client.join().established.reset();
    }
    SECTION("that hangs up, and then one that does not") {
        Aside client = connecting(folder.file());
        {
            const Descriptor listener = raw_listener(folder.file());
            raw_accept(listener).reset();
        }
        const Established server = listen(folder.file(), listen_options(kCapacity));
        CHECK(client.join().established);
        client.join().established.reset();
    }
    SECTION("that accepts and is silent") {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file(), connect_options(200));
        const Descriptor socket = raw_accept(listener);
        CHECK(client.join().failure == SetupFailure::timed_out);
    }
    SECTION("that never accepts") {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file(), connect_options(200));
        CHECK(client.join().failure == SetupFailure::timed_out);
    }
    SECTION("that sends half a hello") {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file(), connect_options(200));
        const Descriptor socket = raw_accept(listener);
        const Hello hello = good_hello();
        REQUIRE(send_raw(socket.get(), &hello, 40));
        CHECK(client.join().failure == SetupFailure::timed_out);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a connector can be interrupted, and leaves nothing") {
    const Folder folder;
    const Held before;
    SECTION("while there is no listener") {
        Aside client = connecting(folder.file());
        sleep_us(10'000);
        client.interrupt();
        CHECK(client.join().failure == SetupFailure::interrupted);
    }
    SECTION("while the listener is silent") {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file());
        const Descriptor socket = raw_accept(listener);
        REQUIRE(socket);
        client.interrupt();
        CHECK(client.join().failure == SetupFailure::interrupted);
    }
    SECTION("while the listener owes the last word") {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file());
        const Descriptor socket = raw_accept(listener);
        REQUIRE(receive_raw(socket.get()).complete);
        const RingSegment segment = RingSegment::create(kCapacity);
        const Hello hello = offer();
        REQUIRE(send_raw(socket.get(), &hello, sizeof hello, {segment.descriptor()}));
        char ready = 0;
        REQUIRE(::recv(socket.get(), &ready, 1, 0) == 1);
        client.interrupt();
        CHECK(client.join().failure == SetupFailure::interrupted);
    }
    SECTION("while the listener's queue is full") {
        const sockaddr_un address = make_address(folder.file());
        const Descriptor listener = make_stream_socket();
        REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        REQUIRE(::listen(listener.get(), 0) == 0);
        std::vector<Descriptor> clients;
        do clients.push_back(make_stream_socket());
        while (::connect(clients.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        Aside client = connecting(folder.file());
        sleep_us(10'000);
        CHECK_FALSE(client.done());
        client.interrupt();
        CHECK(client.join().failure == SetupFailure::interrupted);
    }
    CHECK(Held{} == before);
}
