// One listener, many clients. What a single client may do wrong stands in handshake.tests.cpp.
#include <poll.h>

#include <optional>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/handshake.hpp"
#include "tachyon/socket_file.hpp"

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
    for (int i = 0; i < 8; ++i) {  // all the offers that may be open at once
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
