// Who the peer is, whether it may come in, and how it ends.
#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("a connection says when the peer has hung up, and goes on saying so") {
    const Folder folder;
    Aside listener = listening(folder.file());
    Established client = connect(folder.file(), connect_options());
    Connection& server = listener.join().established->connection;
    CHECK_FALSE(server.hung_up());
    SECTION("with nothing in the socket") {}
    SECTION("with bytes left in the socket") { REQUIRE(send_raw(client.connection.socket(), "abc", 3)); }
    CHECK_FALSE(server.hung_up());
    client.connection.shut_down();
    CHECK(client.connection.hung_up());  // its own end, too
    CHECK(client.connection.socket() == -1);
    for (int i = 0; i < 3; ++i) CHECK(server.hung_up());
    client.connection.shut_down();
}

#if !TACHYON_TEST_TSAN

TEST_CASE("the death of a peer shows although a process that it forked still holds its socket") {
    const Folder folder;
    const Shared<std::atomic<pid_t>> grandchild;
    Child child([&] {
        const Established client = connect(folder.file(), connect_options());
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::prctl(PR_SET_PDEATHSIG, 0);
            ::alarm(60);
            ::pause();
            ::_exit(0);
        }
        *grandchild = pid;
        ::pause();
        return 0;
    });
    const Established server = listen(folder.file(), listen_options(kCapacity));
    CHECK(server.connection.peer_pid() == child.pid());
    REQUIRE(eventually([&] { return *grandchild != 0; }));
    CHECK_FALSE(server.connection.hung_up());
    child.kill();
    CHECK(eventually([&] { return server.connection.hung_up(); }, 10'000));  // not reaped yet: zombies count as dead
    child.wait();
    CHECK(::kill(*grandchild, 0) == 0);
    CHECK(server.connection.hung_up());
    ::kill(*grandchild, SIGKILL);  // adopted by init, or whoever reaps here
}

namespace {

constexpr uid_t kNobody = 65534;

bool can_be_nobody() {
    if (::geteuid() == 0) return true;
    WARN("skipped: only root can become another user");
    return false;
}

int become_nobody() { return ::setgid(kNobody) == 0 && ::setuid(kNobody) == 0 ? 0 : 1; }

int expect_error(const std::function<void()>& call, int error_number, const char* part) {
    try {
        call();
    } catch (const SetupError& error) {
        if (error.error_number() == error_number && contains(error.what(), part)) return 0;
        std::fprintf(stderr, "child: %d, %s\n", error.error_number(), error.what());
        return 1;
    }
    std::fprintf(stderr, "child: no error\n");
    return 2;
}

}  // namespace

TEST_CASE("a client of another user is refused, told so, and the next one is served") {
    if (!can_be_nobody()) return;
    const Folder folder;
    REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
    Aside listener = listening(folder.file());
    REQUIRE(eventually([&] { return exists(folder.file()); }));
    Child stranger([&] {
        TACHYON_CHILD_CHECK(become_nobody() == 0);
        return expect_error([&] { (void)connect(folder.file(), ConnectOptions{}); }, EACCES, "cannot connect");
    });
    CHECK(stranger.wait() == 0);
    // Somebody has opened the file's mode; the listener has its own check.
    REQUIRE(::chmod(folder.file().c_str(), 0666) == 0);
    for (int round = 0; round < 10; ++round) {
        Child intruder([&] {
            TACHYON_CHILD_CHECK(become_nobody() == 0);
            ConnectOptions options;
            options.uid = 0;
            return expect_error([&] { (void)connect(folder.file(), options); }, EACCES, "refuses user 65534");
        });
        REQUIRE(intruder.wait() == 0);
    }
    CHECK_FALSE(listener.done());
    check_served(listener, folder.file());
}

TEST_CASE("a listener with an open mode lets other users in") {
    if (!can_be_nobody()) return;
    const Folder folder;
    REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
    ListenOptions options = listen_options(kCapacity);
    options.mode = 0666;
    Child stranger([&] {
        TACHYON_CHILD_CHECK(become_nobody() == 0);
        ConnectOptions wanted = connect_options();
        wanted.uid = 0;
        const Established client = connect(folder.file(), wanted);
        TACHYON_CHILD_CHECK(client.connection.peer_uid() == 0);
        return 0;
    });
    const Established server = listen(folder.file(), options);
    CHECK(server.connection.peer_uid() == kNobody);
    CHECK(stranger.wait() == 0);
}

TEST_CASE("a connector trusts only listeners of its own user, of root, or of the user it named") {
    if (!can_be_nobody()) return;
    const Folder folder;
    REQUIRE(::chmod(folder.path().c_str(), 0777) == 0);
    Child server([&] {
        TACHYON_CHILD_CHECK(become_nobody() == 0);
        ListenOptions options = listen_options(kCapacity);
        const Established established = listen(folder.file(), options);
        TACHYON_CHILD_CHECK(established.connection.peer_uid() == 0);
        return 0;
    });
    REQUIRE(eventually([&] { return exists(folder.file()); }));
    {
        Aside client = connecting(folder.file());
        CHECK(client.join().failure == SetupFailure::handshake);
        CHECK(client.join().error_number == EACCES);
        CHECK(contains(client.join().what, "65534"));
    }
    ConnectOptions options = connect_options();
    options.uid = 1;
    {
        Aside client = connecting(folder.file(), options);
        CHECK(client.join().error_number == EACCES);
    }
    options.uid = kNobody;
    {
        Aside client = connecting(folder.file(), options);
        INFO(client.join().what);
        CHECK(client.join().established);
    }
    CHECK(server.wait() == 0);
}

TEST_CASE("silent clients that use up the listener's descriptors do not end it") {
    const Folder folder;
    for (const std::size_t spare : {8u, 9u, 10u, 11u}) {  // a client takes two: the limit is met at either of them
        INFO(spare << " descriptors to spare");
        // The listener has this process to itself: the limit would be everybody's.
        Child server([&] {
            const rlimit limit{static_cast<rlim_t>(count_descriptors() + spare),
                               static_cast<rlim_t>(count_descriptors() + spare)};
            TACHYON_CHILD_CHECK(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
            const Established established = listen(folder.file(), listen_options(kCapacity));
            return 0;
        });
        std::vector<Descriptor> silent;
        for (int i = 0; i < 30; ++i) silent.push_back(raw_client(folder.file()));
        Aside client = connecting(folder.file(), connect_options(10'000));
        CHECK(client.join().established);
        CHECK(server.wait() == 0);
    }
}

TEST_CASE("a client that is killed anywhere in the handshake does not stop the listener") {
    const Folder folder;
    const Held before;
    Random random(32);
    for (int round = 0; round < (long_form() ? 1000 : 20); ++round) {
        Aside listener = listening(folder.file());
        for (int i = 0; i < 3 && !listener.done(); ++i) {
            Child client([&] {
                const Established established = connect(folder.file(), connect_options());
                ::pause();
                return 0;
            });
            sleep_us(static_cast<unsigned>(random.below(700)));  // a whole handshake takes about that long
            client.kill();
            client.wait();
        }
        if (!listener.done()) {
            // One of them may have been let in just before its end; then the listener is done after all.
            try {
                ConnectOptions options = connect_options(3'000);
                (void)connect(folder.file(), options);
            } catch (const SetupError& error) {
                REQUIRE(error.failure() == SetupFailure::timed_out);
            }
        }
        INFO(listener.join().what);
        REQUIRE(listener.join().established);
    }
    CHECK(folder.entries().empty());
    CHECK(Held{} == before);
}

#endif
