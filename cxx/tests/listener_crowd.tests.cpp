// More clients at once than a listener looks after, and clients that stall: who makes room for whom.
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

TEST_CASE("more clients at once than a listener looks after are all let in at their first try") {
    const Folder folder;
    Listener listener(folder.file(), many());
    std::vector<Descriptor> clients;
    // More than 64 that have said all they have to say: of the second half nothing has been read when there are too many.
    for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < 40; ++i) {
            clients.push_back(greet(folder.file()));
            REQUIRE(clients.back());
        }
        CHECK_FALSE(listener.try_accept());
    }
    std::size_t let_in = 0;
    CHECK(eventually([&] {
        if (listener.try_accept()) ++let_in;
        for (const Descriptor& each : clients) {
            std::array<char, sizeof(Hello)> hello;
            if (::recv(each.get(), hello.data(), hello.size(), MSG_DONTWAIT) == static_cast<ssize_t>(hello.size()))
                (void)::send(each.get(), &kReady, 1, MSG_NOSIGNAL);
        }
        return let_in == clients.size();
    }));
    CHECK(let_in == clients.size());
}

TEST_CASE("a listener that can take no more clients does not say that there is something to do") {
    const Folder folder;
    Listener listener(folder.file(), many());
    std::vector<Descriptor> greeted;
    for (int i = 0; i < 70; ++i) {
        greeted.push_back(greet(folder.file()));
        REQUIRE(greeted.back());
        CHECK_FALSE(listener.try_accept());
    }
    for (int i = 0; i < 10; ++i) CHECK_FALSE(listener.try_accept());
    CHECK_FALSE(readable(listener.descriptor(), 0));  // though there are more
    greeted.clear();
    Connecting connecting(folder.file());
    listener.accept(in_ms(30'000));
    connecting.join();
}

TEST_CASE("where there are too many silent clients the one that came first is dropped") {
    const Folder folder;
    Listener listener(folder.file(), many());
    const sockaddr_un address = make_address(folder.file());
    std::vector<Descriptor> silent;
    for (int i = 0; i < 70; ++i) {
        silent.push_back(make_stream_socket());
        REQUIRE(::connect(silent.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        CHECK_FALSE(listener.try_accept());
    }
    const auto dropped = [](const Descriptor& client) {
        pollfd entry{client.get(), POLLRDHUP, 0};
        return ::poll(&entry, 1, 0) == 1;
    };
    CHECK(eventually([&] {  // once it has had its time
        CHECK_FALSE(listener.try_accept());
        return dropped(silent.front());
    }));
    sleep_us(50'000);
    CHECK_FALSE(listener.try_accept());
    CHECK_FALSE(dropped(silent[40]));  // only as many as others need room: it was not that their time was over
    CHECK_FALSE(dropped(silent.back()));
}

#if !TACHYON_TEST_TSAN
namespace {

// Connects, and does a third of all there is to do, or two, and stalls: says nothing; says hello; takes the offer.
class Staller {
  public:
    explicit Staller(int how_far) : how_far_(how_far) {}
    // True when it has come, again.
    bool go_on(const std::string& path) {
        if (how_far_ == 2 && socket_) {
            Hello hello{};
            alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxSegments)> control;
            iovec part{&hello, sizeof hello};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = control.data();
            message.msg_controllen = control.size();
            if (::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0) {
                if (const cmsghdr* const rights = CMSG_FIRSTHDR(&message)) {
                    int number = -1;
                    std::memcpy(&number, CMSG_DATA(rights), sizeof number);
                    memory_ = Descriptor(number);
                }
            }
        }
        if (socket_ && !hung_up(socket_.get())) return false;
        socket_.reset();
        memory_.reset();
        if (how_far_ == 0) {
            const sockaddr_un address = make_address(path);
            Descriptor socket = make_stream_socket();
            if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return false;
            socket_ = std::move(socket);
        } else {
            socket_ = greet(path);
        }
        return static_cast<bool>(socket_);
    }

  private:
    int how_far_;
    Descriptor socket_, memory_;
};

// In a process of their own, which they never leave.
int stall(const std::string& path, int count, std::atomic<int>& come) {
    std::vector<Staller> stallers;
    for (int i = 0; i < count; ++i) stallers.emplace_back(i % 3);
    for (;;) {
        for (Staller& each : stallers) {
            if (each.go_on(path)) ++come;
        }
        sleep_us(500);
    }
}

}  // namespace

TEST_CASE("two hundred that stall in another process, and come again when they are dropped, keep nobody out") {
    const Folder folder;
    Shared<std::atomic<int>> come;
    Child child([&] { return stall(folder.file(), 200, *come); });
    SECTION("of a listener for many") {
        const Child more([&] { return stall(folder.file(), 200, *come); });  // so that all offers are taken
        Listener listener(folder.file(), many());
        REQUIRE(eventually([&] {
            CHECK_FALSE(listener.try_accept());
            return *come >= 500;
        }));
        for (int i = 0; i < 3; ++i) {
            Connecting newcomer(folder.file());
            listener.accept(in_ms(30'000));
            newcomer.join();
        }
    }
    SECTION("of a listener for one") {
        std::optional<Established> here;
        std::thread listening([&] {
            try {
                here = listen(folder.file(), listen_options());
            } catch (const SetupError&) {}
        });
        (void)eventually([&] { return *come >= 100; });
        Connecting newcomer(folder.file());
        (void)newcomer.error();
        listening.join();
        REQUIRE(here);
        CHECK(here->connection.peer_pid() == ::getpid());
        newcomer.join();
    }
}

TEST_CASE("who wants only one client makes an offer to another process beside one that has taken its own and stalls") {
    const Folder folder;
    Shared<std::atomic<int>> state;  // of the child's client: 1 it has its offer, 2 it has been dropped
    Child child([&] {
        Descriptor client;
        TACHYON_CHILD_CHECK(eventually([&] { return static_cast<bool>(client = greet(folder.file())); }));
        TACHYON_CHILD_CHECK(readable(client.get(), 30'000));
        *state = 1;
        while (!hung_up(client.get())) sleep_us(100);
        *state = 2;
        return 0;
    });
    std::optional<Established> here;
    std::thread listening([&] {
        try {
            here = listen(folder.file(), listen_options());
        } catch (const SetupError&) {}
    });
    const bool stalls = eventually([&] { return *state == 1; });
    const Descriptor client = greet(folder.file());
    const bool offered = client && readable(client.get(), 20'000);
    const int then = *state;
    const bool ready = client && ::send(client.get(), &kReady, 1, MSG_NOSIGNAL) == 1;
    listening.join();
    CHECK(stalls);
    CHECK(offered);
    CHECK(then == 1);
    CHECK(ready);
    REQUIRE(here);
    CHECK(here->connection.peer_pid() == ::getpid());
    CHECK(child.wait() == 0);  // it was dropped
}

TEST_CASE("when all offers are taken, one that stalls is given up to a process that has none, and only one") {
    const Folder folder;
    Listener listener(folder.file(), many());
    Shared<std::atomic<int>> offered, dropped;
    const auto stall_with = [&](int count) {
        std::vector<Descriptor> clients;
        for (int i = 0; i < count; ++i) clients.push_back(greet(folder.file()));
        for (const Descriptor& each : clients) *offered += readable(each.get(), 30'000) ? 1 : 0;
        while (!clients.empty()) {
            const auto gone = std::erase_if(clients, [](const auto& each) { return hung_up(each.get()); });
            *dropped += static_cast<int>(gone);
            sleep_us(200);
        }
        return 0;
    };
    const Child six([&] { return stall_with(6); });
    const Child two([&] { return stall_with(2); });
    REQUIRE(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return *offered == 8;
    }));
    const Descriptor newcomer = greet(folder.file());
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(newcomer.get(), 0);
    }));
    CHECK(eventually([&] { return *dropped > 0; }));
    for (const std::uint64_t until = in_ms(100); now_ns() < until; sleep_us(200)) CHECK_FALSE(listener.try_accept());
    CHECK(*dropped == 1);  // it was not that the time of all of them was over
}

TEST_CASE("where one process has all the places in the handshake, its clients make room, and others find theirs") {
    const Folder folder;
    Listener listener(folder.file(), many());
    const std::uint64_t first = now_ns();
    std::vector<Descriptor> greeted;
    for (int i = 0; i < 140; ++i) {
        greeted.push_back(greet(folder.file()));
        REQUIRE(greeted.back());
        CHECK_FALSE(listener.try_accept());
    }
    const bool nothing_to_do = !readable(listener.descriptor(), 0);
    if (now_ns() - first < 100 * kMillisecond) CHECK(nothing_to_do);
    CHECK(eventually([&] {  // in 0.1 s, and that it wakes for by itself
        if (readable(listener.descriptor(), 10'000)) CHECK_FALSE(listener.try_accept());
        return std::ranges::count_if(greeted, [](const auto& each) { return hung_up(each.get()); }) >= 12;
    }));
    CHECK_FALSE(listener.try_accept());
    CHECK_FALSE(readable(listener.descriptor(), 0));
    CHECK(std::ranges::count_if(greeted, [](const auto& each) { return hung_up(each.get()); }) == 12);
    CHECK_FALSE(hung_up(greeted.front().get()));
}
#endif
