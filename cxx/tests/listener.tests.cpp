// One listener, many clients. What a single client may do wrong stands in handshake.tests.cpp.
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <optional>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/link/socket_file.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kCapacity = 4096;

ListenOptions many(Kind kind = Kind::bus) {
    ListenOptions options;
    options.kind = kind;
    options.capacities = {kCapacity};
    if (kind == Kind::rpc) options.capacities.push_back(kCapacity);
    return options;
}

bool readable(int descriptor, int patience_ms) {
    pollfd entry{descriptor, POLLIN, 0};
    return ::poll(&entry, 1, patience_ms) == 1;
}

bool hung_up(int socket) {
    pollfd entry{socket, POLLRDHUP, 0};
    return ::poll(&entry, 1, 0) == 1;
}

// Connects in a thread of its own.
class Connecting {
  public:
    explicit Connecting(const std::string& path, Kind kind = Kind::bus)
        : thread_([this, path, kind] {
              try {
                  ConnectOptions options = connect_options();
                  options.kind = kind;
                  options.segments = kind == Kind::rpc ? 2 : 1;
                  established_ = connect(path, options);
              } catch (const SetupError& error) {
                  error_number_ = error.error_number();
              }
              done_ = true;
          }) {}
    ~Connecting() {
        if (thread_.joinable()) thread_.join();
    }
    Established& join() {
        if (thread_.joinable()) thread_.join();
        REQUIRE(established_);
        return *established_;
    }
    [[nodiscard]] bool done() const { return done_; }
    int error() {
        if (thread_.joinable()) thread_.join();
        return error_number_;
    }

  private:
    std::optional<Established> established_;
    int error_number_ = 0;
    std::atomic<bool> done_{false};
    std::thread thread_;
};

// A client that says a good Hello and then does as it pleases.
Descriptor greet(const std::string& path) {
    Descriptor socket = make_stream_socket();
    const sockaddr_un address = make_address(path);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
    Hello hello{};
    std::memcpy(hello.magic, kHelloMagic, sizeof hello.magic);
    hello.byte_order = kByteOrder;
    hello.version = kProtocolVersion;
    hello.kind = static_cast<std::uint16_t>(Kind::bus);
    hello.layout_hash = layout_hash();
    if (::send(socket.get(), &hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello) return {};
    return socket;
}

}  // namespace

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
        for (std::uint32_t i = 0; i < 3; ++i) here[i].segments[0].header()->producer_parked.store(i + 10);
        for (std::uint32_t i = 0; i < 3; ++i) CHECK(there[i].segments[0].header()->producer_parked.load() == i + 10);
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

TEST_CASE("a client that is dropped keeps no memory of the listener's") {
    const Folder folder;
    Listener listener(folder.file(), many());
    const Descriptor client = greet(folder.file());
    REQUIRE(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(client.get(), 0);
    }));
    Hello hello{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
    iovec part{&hello, sizeof hello};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    REQUIRE(::recvmsg(client.get(), &message, 0) == sizeof hello);
    int number = -1;
    std::memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof number);
    const Descriptor memory(number);
    const auto blocks = [&] {
        struct stat status{};
        ::fstat(memory.get(), &status);
        return status.st_blocks;
    };
    CHECK(blocks() == 2 * 8);  // the header page, and the ring's
    REQUIRE(::send(client.get(), "x", 1, MSG_NOSIGNAL) == 1);
    CHECK_FALSE(listener.try_accept());
    REQUIRE(eventually([&] { return hung_up(client.get()); }));
    CHECK(blocks() == 8);
}

TEST_CASE("accept can be interrupted while it reserves memory, and the client goes on waiting") {
    const Folder folder;
    ListenOptions options = many();
    options.capacities = {256u << 20};
    Listener listener(folder.file(), options);
    const Descriptor first = greet(folder.file());
    REQUIRE(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(first.get(), 0);  // what the listener has in store
    }));
    const Descriptor second = greet(folder.file());
    try {
        listener.accept(kNever, Interrupt{[](void*) { return count_segment_mappings() == 2; }, nullptr});
        FAIL("it was interrupted");
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::interrupted);
    }
    CHECK(count_segment_mappings() == 1);
    CHECK_FALSE(readable(second.get(), 0));
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(second.get(), 0);
    }));
}

TEST_CASE("without a single descriptor to be had a listener says so when somebody comes, and not before") {
    const Folder folder;
    Child child([&] {
        Listener listener(folder.file(), many());
        const Descriptor client = make_stream_socket();
        TACHYON_CHILD_CHECK(!listener.try_accept());
        rlimit before{};
        ::getrlimit(RLIMIT_NOFILE, &before);
        const rlimit none{0, before.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &none);
        TACHYON_CHILD_CHECK(!listener.try_accept());
        try {
            (void)listener.accept(in_ms(10));
        } catch (const SetupError& error) {
            TACHYON_CHILD_CHECK(error.failure() == SetupFailure::timed_out);
        }
        const sockaddr_un address = make_address(folder.file());
        const auto* const where = reinterpret_cast<const sockaddr*>(&address);
        TACHYON_CHILD_CHECK(::connect(client.get(), where, sizeof address) == 0);
        for (const bool wait : {false, true}) {
            int error_number = 0;
            try {
                if (wait) {
                    (void)listener.accept(kNever);
                } else {
                    (void)listener.try_accept();
                }
            } catch (const SetupError& error) {
                error_number = error.error_number();
            }
            TACHYON_CHILD_CHECK(error_number == EMFILE);
        }
        return 0;
    });
    CHECK(child.wait() == 0);
}

TEST_CASE("a forked child does not listen, and leaves its parent's socket file alone") {
    const Folder folder;
    std::optional<Listener> listener;
    listener.emplace(folder.file(), many());
    Child child([&] {
        TACHYON_CHILD_CHECK(listener->forked());
        bool refused = false;
        try {
            (void)listener->try_accept();
        } catch (const SetupError&) {
            refused = true;
        }
        TACHYON_CHILD_CHECK(refused);
        listener.reset();
        TACHYON_CHILD_CHECK(exists(folder.file()));
        return 0;
    });
    CHECK(child.wait() == 0);
    CHECK_FALSE(listener->forked());
    Connecting connecting(folder.file());
    listener->accept(in_ms(30'000));
    connecting.join();

    // A child that lives on does not keep the path answering.
    Shared<std::atomic<bool>> alive;
    Child survivor([&] {
        *alive = true;
        ::pause();
        return 0;
    });
    REQUIRE(eventually([&] { return alive->load(); }));
    const std::string other = folder.file("kept");
    REQUIRE(::link(folder.file().c_str(), other.c_str()) == 0);
    listener.reset();
    const Descriptor probe = make_stream_socket();
    const sockaddr_un kept = make_address(other);
    CHECK(::connect(probe.get(), reinterpret_cast<const sockaddr*>(&kept), sizeof kept) != 0);
    CHECK(errno == ECONNREFUSED);
}

TEST_CASE("a forked child that lives on keeps no client that its parent drops, and no listener awake") {
    const Folder folder;
    Listener listener(folder.file(), many());
    Descriptor silent = make_stream_socket();
    Descriptor babbling = make_stream_socket();
    const sockaddr_un address = make_address(folder.file());
    for (const int each : {silent.get(), babbling.get()}) {
        REQUIRE(::connect(each, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    CHECK_FALSE(listener.try_accept());
    Shared<std::atomic<bool>> alive;
    Child survivor([&] {
        silent.reset();
        babbling.reset();
        *alive = true;
        ::pause();
        return 0;
    });
    REQUIRE(eventually([&] { return alive->load(); }));
    silent.reset();
    const std::string rubbish(100, 'x');
    REQUIRE(::send(babbling.get(), rubbish.data(), rubbish.size(), MSG_NOSIGNAL) == 100);
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return !readable(listener.descriptor(), 0);
    }));
    pollfd entry{babbling.get(), POLLRDHUP, 0};
    CHECK(::poll(&entry, 1, 30'000) == 1);
}
#endif
