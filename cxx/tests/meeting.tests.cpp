// The handshake over a socket that is connected already.
#include "tachyon/link/meeting.hpp"

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/rpc.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

struct Sockets {
    Sockets() {
        int numbers[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, numbers) != 0) throw std::runtime_error("socketpair");
        one = Descriptor(numbers[0]);
        other = Descriptor(numbers[1]);
    }
    Descriptor one, other;
};

int error_of(Meeting& meeting) {
    try {
        (void)meeting.advance();
    } catch (const SetupError& error) {
        return error.error_number();
    }
    return 0;
}

}  // namespace

TEST_CASE("a meeting goes on as far as it can, and never waits") {
    const Held before;
    {
        Sockets sockets;
        Meeting listener(std::move(sockets.one), listen_options());
        Meeting connector(std::move(sockets.other), ConnectOptions{});
        std::optional<Established> here, there;
        CHECK_FALSE(listener.advance());   // nobody has said anything
        CHECK_FALSE(connector.advance());  // hello
        CHECK_FALSE(connector.advance());
        CHECK_FALSE(listener.advance());   // hello, and the memory
        CHECK_FALSE(connector.advance());  // ready
        here = listener.advance();         // ready
        there = connector.advance();
        REQUIRE(here);
        REQUIRE(there);
        CHECK(here->connection.peer_pid() == ::getpid());
        const auto consumer = Bus::adopt(std::move(*here)), producer = Bus::adopt(std::move(*there));
        CHECK(producer->try_send("abc", 3, 7) == Status::ok);
        Frame frame;
        CHECK(consumer->try_peek(frame) == Status::ok);
        CHECK(frame.type_id == 7);
        consumer->let_go(frame);
        CHECK(error_of(listener) == EBADF);
    }
    CHECK(Held{} == before);
}

TEST_CASE("what is no greeting ends a meeting, and so does a hang-up") {
    Sockets sockets;
    const bool listens = GENERATE(true, false);
    const Descriptor far = std::move(sockets.other);
    Meeting meeting =
        listens ? Meeting(std::move(sockets.one), listen_options()) : Meeting(std::move(sockets.one), ConnectOptions{});
    CHECK_FALSE(meeting.advance());
    SECTION("garbage") {
        const std::string garbage(300, 'x');
        REQUIRE(::send(far.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL) == 300);
        CHECK(error_of(meeting) == EPROTO);
    }
    SECTION("a hang-up, to something unread or not") {
        ::shutdown(far.get(), SHUT_RDWR);
        CHECK(error_of(meeting) == ECONNRESET);
    }
    CHECK(meeting.descriptor() == -1);
    CHECK(error_of(meeting) == EBADF);
}

TEST_CASE("two kinds that meet are told so on both sides") {
    Sockets sockets;
    ListenOptions options = listen_options();
    Meeting listener(std::move(sockets.one), options);
    Meeting connector(std::move(sockets.other), ConnectOptions{.kind = Kind::rpc});
    CHECK_FALSE(connector.advance());
    CHECK(error_of(listener) == EPROTOTYPE);
    CHECK(error_of(connector) == EPROTOTYPE);
}

TEST_CASE("a meeting waits until its deadline, and can be gone on with") {
    Sockets sockets;
    Meeting listener(std::move(sockets.one), listen_options());
    try {
        (void)listener.meet(in_ms(20));
        FAIL("nobody was there");
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::timed_out);
    }
    std::thread other([&] { (void)Bus::connect(std::move(sockets.other)); });
    (void)listener.meet(in_ms(30'000));
    other.join();
}

#if !TACHYON_TEST_TSAN

TEST_CASE("the peer is who greets, not who made the sockets, and its death shows whoever holds its socket") {
    Sockets sockets;
    const Shared<std::atomic<pid_t>> grandchild;
    const bool listens = GENERATE(true, false);
    Child child([&] {
        sockets.one.reset();
        const auto bus =
            listens ? Bus::connect(std::move(sockets.other)) : Bus::listen(std::move(sockets.other), listen_options());
        TACHYON_CHILD_CHECK(bus->peer_pid() == ::getppid());
        ::pause();
        return 0;
    });
    // `other` stays open here, as in a forked child of a maker.
    const auto bus =
        listens ? Bus::listen(std::move(sockets.one), listen_options()) : Bus::connect(std::move(sockets.one));
    CHECK(bus->peer_pid() == child.pid());
    Frame frame;
    CHECK(receive(*bus, frame, in_ms(20)) == Status::empty);
    child.kill();
    CHECK(receive(*bus, frame, in_ms(30'000)) == Status::peer_dead);
}

TEST_CASE("a peer that greeted and died before it was heard is not taken for one") {
    Sockets sockets;
    Child child([&] {
        Meeting meeting(std::move(sockets.other), ConnectOptions{});
        return meeting.advance() ? 1 : 0;
    });
    REQUIRE(child.wait() == 0);
    Meeting listener(std::move(sockets.one), listen_options());  // `other` is open here all the same
    CHECK(error_of(listener) == ECONNRESET);
}

TEST_CASE("in a forked child a meeting has come to its end, and hides nothing") {
    Sockets sockets;
    Meeting connector(std::move(sockets.other), ConnectOptions{});
    CHECK_FALSE(connector.advance());
    const Shared<std::atomic<int>> error;
    Child child([&] {
        sockets.one.reset();
        TACHYON_CHILD_CHECK(connector.forked());
        *error = error_of(connector);
        ::pause();
        return 0;
    });
    CHECK(eventually([&] { return *error != 0; }));
    CHECK(*error == EBADF);
    auto meeting = std::make_unique<Meeting>(std::move(sockets.one), listen_options());
    CHECK_FALSE(meeting->advance());
    meeting.reset();
    CHECK(eventually([&] { return error_of(connector) == ECONNRESET; }));
}

TEST_CASE("calls go over a socket pair too") {
    Sockets sockets;
    Child child([&] {
        sockets.one.reset();
        RpcRings rings = connect_rpc(std::move(sockets.other));
        Caller caller(rings);
        std::uint64_t id = 0;
        TACHYON_CHILD_CHECK(caller.call(std::as_bytes(std::span("abc", 3)), 1, id) == Status::ok);
        TACHYON_CHILD_CHECK(caller.wait(id).text() == "cba");
        return 0;
    });
    sockets.other.reset();
    ListenOptions options = listen_options();
    options.capacities = {4096, 4096};
    RpcRings rings = listen_rpc(std::move(sockets.one), options);
    Callee callee(rings);
    const std::uint64_t id = callee.serve().correlation_id();
    CHECK(callee.reply(id, std::as_bytes(std::span("cba", 3))) == Status::ok);
    CHECK(child.wait() == 0);
}

#endif
