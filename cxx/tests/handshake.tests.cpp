#include "tachyon/link/handshake.hpp"

#include <poll.h>
#include <sys/un.h>

#include <functional>
#include <optional>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/link/socket_file.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kCapacity = 4096;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// ---- either side, in a thread of its own ---------------------------------------------------------------------------------

struct Outcome {
    std::optional<Established> established;
    std::optional<SetupFailure> failure;
    int error_number = 0;
    std::string what;
};

// A listen or connect that runs aside. Ends, by interrupt, with its scope.
class Aside {
  public:
    explicit Aside(std::function<Established(const Interrupt&)> call)
        : thread_([this, call = std::move(call)] {
              const Interrupt interrupt{[](void* flag) { return static_cast<std::atomic<bool>*>(flag)->load(); },
                                        &stop_};
              try {
                  outcome_.established = call(interrupt);
              } catch (const SetupError& error) {
                  outcome_.failure = error.failure();
                  outcome_.error_number = error.error_number();
                  outcome_.what = error.what();
              }
              done_ = true;
          }) {}
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;
    ~Aside() {
        interrupt();
        if (thread_.joinable()) thread_.join();
    }
    void interrupt() { stop_ = true; }
    [[nodiscard]] bool done() const { return done_; }
    Outcome& join() {
        if (thread_.joinable()) thread_.join();
        return outcome_;
    }

  private:
    std::atomic<bool> stop_{false}, done_{false};
    Outcome outcome_;
    std::thread thread_;
};

Aside listening(const std::string& path, ListenOptions options = listen_options(kCapacity)) {
    return Aside([=](const Interrupt& interrupt) { return listen(path, options, interrupt); });
}
Aside connecting(const std::string& path, ConnectOptions options = connect_options()) {
    return Aside([=](const Interrupt& interrupt) { return connect(path, options, interrupt); });
}

// ---- raw peers -----------------------------------------------------------------------------------------------------------

Hello good_hello(Kind kind = Kind::bus) {
    Hello hello{};
    std::memcpy(hello.magic, kHelloMagic, sizeof hello.magic);
    hello.byte_order = kByteOrder;
    hello.version = kProtocolVersion;
    hello.kind = static_cast<std::uint16_t>(kind);
    hello.layout_hash = layout_hash();
    hello.abilities = 0;
    return hello;
}

// Bytes, and descriptors with the first of them.
bool send_raw(int socket, const void* bytes, std::size_t size, const std::vector<int>& descriptors = {}) {
    iovec part{const_cast<void*>(bytes), size};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 253)] = {};  // the most that the kernel takes
    if (!descriptors.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
        std::memcpy(CMSG_DATA(rights), descriptors.data(), sizeof(int) * descriptors.size());
    }
    return ::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

bool readable(int socket, std::uint64_t patience_ms = 20'000) {
    pollfd entry{socket, POLLIN, 0};
    return ::poll(&entry, 1, static_cast<int>(patience_ms)) > 0;
}

// A Hello with its descriptors, or nothing if the peer hangs up instead.
struct Received {
    bool complete = false;
    Hello hello{};
    std::vector<Descriptor> descriptors;
};
Received receive_raw(int socket) {
    Received result;
    std::size_t got = 0;
    while (got < sizeof result.hello && readable(socket)) {
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)];
        iovec part{reinterpret_cast<char*>(&result.hello) + got, sizeof result.hello - got};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        if (n <= 0) return result;
        got += static_cast<std::size_t>(n);
        if (const cmsghdr* const rights = CMSG_FIRSTHDR(&message); rights != nullptr) {
            for (std::size_t i = 0; i < (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
                int number = -1;
                std::memcpy(&number, CMSG_DATA(rights) + i * sizeof number, sizeof number);
                result.descriptors.emplace_back(number);
            }
        }
    }
    result.complete = got == sizeof result.hello;
    return result;
}

bool hangs_up(int socket) {
    char bytes[256];
    while (readable(socket)) {
        const ssize_t n = ::recv(socket, bytes, sizeof bytes, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
        if (n < 0) return false;
    }
    return false;
}

// A blocking client socket, once somebody listens.
Descriptor raw_client(const std::string& path) {
    const sockaddr_un address = make_address(path);
    Descriptor socket;
    const bool connected = eventually([&] {
        socket = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    });
    return connected ? std::move(socket) : Descriptor();
}

Descriptor raw_listener(const std::string& path) {
    const sockaddr_un address = make_address(path);
    Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Descriptor();
    if (::listen(socket.get(), 16) != 0) return Descriptor();
    return socket;
}
Descriptor raw_accept(const Descriptor& listener) {
    return readable(listener.get()) ? Descriptor(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))
                                    : Descriptor();
}

// A well-behaved client comes, is served, and the memory works in both directions.
void check_served(Aside& listener, const std::string& path) {
    Established client = connect(path, connect_options());
    Outcome& outcome = listener.join();
    INFO(outcome.what);
    REQUIRE(outcome.established);
    REQUIRE(outcome.established->segments.size() == client.segments.size());
    outcome.established->segments[0].header()->read_position.store(123);
    CHECK(client.segments[0].header()->read_position.load() == 123);
    CHECK_FALSE(client.connection.hung_up());
    CHECK_FALSE(exists(path));
}

}  // namespace

// ---- how it should go ----------------------------------------------------------------------------------------------------

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
        wanted.segments = options.capacities.size();
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
            CHECK(ours.segments[i].capacity() == options.capacities[i]);
            CHECK(theirs.segments[i].capacity() == options.capacities[i]);
            CHECK(ours.segments[i].descriptor() == -1);
            CHECK(theirs.segments[i].descriptor() == -1);
            ours.segments[i].header()->read_position.store(40 + i);
            CHECK(theirs.segments[i].header()->read_position.load() == 40 + i);
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
        REQUIRE(receive_raw(socket.get()).hello.abilities == (register_membarrier() ? kAbilityMembarrier : 0));
        const Segment segment = Segment::create(kCapacity);
        Hello hello = good_hello();
        hello.segments = 1;
        hello.capacity[0] = kCapacity;
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
    CHECK(answer.hello.capacity[0] == kCapacity);
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

// ---- clients that misbehave ----------------------------------------------------------------------------------------------

namespace {

struct Misbehaviour {
    const char* name;
    // Returns false if the client did not get the answer it should.
    std::function<bool(const Descriptor&)> act;
};

bool rejected_with(const Descriptor& client, const Hello& hello, Verdict verdict) {
    if (!send_raw(client.get(), &hello, sizeof hello)) return false;
    const Received answer = receive_raw(client.get());
    return answer.complete && answer.hello.verdict == static_cast<std::uint32_t>(verdict) &&
           answer.descriptors.empty() && answer.hello.version == kProtocolVersion && hangs_up(client.get());
}

bool dropped_after(const Descriptor& client, const Hello& hello, const std::vector<int>& descriptors = {}) {
    return send_raw(client.get(), &hello, sizeof hello, descriptors) && hangs_up(client.get());
}

std::vector<int> times(int number, std::size_t count) { return std::vector<int>(count, number); }

const std::vector<Misbehaviour>& misbehaviours() {
    static const std::vector<Misbehaviour> all{
        {"hangs up at once", [](const Descriptor&) { return true; }},
        {"sends half a hello and hangs up",
         [](const Descriptor& client) {
             const Hello hello = good_hello();
             return send_raw(client.get(), &hello, 32);
         }},
        {"sends garbage",
         [](const Descriptor& client) {
             const std::string garbage(sizeof(Hello), 'x');
             return send_raw(client.get(), garbage.data(), garbage.size()) && hangs_up(client.get());
         }},
        {"sends much garbage",
         [](const Descriptor& client) {
             const std::string garbage(60'000, '\xff');
             (void)send_raw(client.get(), garbage.data(), garbage.size());
             return hangs_up(client.get());
         }},
        {"sends garbage with a descriptor",
         [](const Descriptor& client) {
             const std::string garbage(10, 'x');
             return send_raw(client.get(), garbage.data(), garbage.size(), {0}) && hangs_up(client.get());
         }},
        {"has another magic",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.magic[7] = '\x1b';
             return dropped_after(client, hello);
         }},
        {"has another byte order",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.byte_order = 0x04030201;
             return dropped_after(client, hello);
         }},
        {"speaks another version",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.version = kProtocolVersion + 1;
             return rejected_with(client, hello, Verdict::wrong_version);
         }},
        {"has another layout",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.layout_hash ^= 1;
             return rejected_with(client, hello, Verdict::wrong_layout);
         }},
        {"passes a descriptor with its hello",
         [](const Descriptor& client) { return dropped_after(client, good_hello(), times(client.get(), 1)); }},
        {"passes two descriptors with its hello",
         [](const Descriptor& client) { return dropped_after(client, good_hello(), times(client.get(), 2)); }},
        {"passes three descriptors with its hello",
         [](const Descriptor& client) { return dropped_after(client, good_hello(), times(client.get(), 3)); }},
        {"passes a hundred descriptors with its hello",
         [](const Descriptor& client) { return dropped_after(client, good_hello(), times(client.get(), 100)); }},
        {"passes a descriptor with the last byte of its hello",
         [](const Descriptor& client) {
             const Hello hello = good_hello();
             return send_raw(client.get(), &hello, 63) &&
                    send_raw(client.get(), reinterpret_cast<const char*>(&hello) + 63, 1, {client.get()}) &&
                    hangs_up(client.get());
         }},
        {"hangs up after the offer",
         [](const Descriptor& client) {
             const Hello hello = good_hello();
             return send_raw(client.get(), &hello, sizeof hello) && receive_raw(client.get()).complete;
         }},
        {"answers the offer with another byte",
         [](const Descriptor& client) {
             const Hello hello = good_hello();
             return send_raw(client.get(), &hello, sizeof hello) && receive_raw(client.get()).complete &&
                    send_raw(client.get(), "r", 1) && hangs_up(client.get());
         }},
        {"answers the offer with a descriptor and another byte",
         [](const Descriptor& client) {
             const Hello hello = good_hello();
             return send_raw(client.get(), &hello, sizeof hello) && receive_raw(client.get()).complete &&
                    send_raw(client.get(), "r", 1, {client.get()}) && hangs_up(client.get());
         }},
        {"shuts its side down",
         [](const Descriptor& client) { return ::shutdown(client.get(), SHUT_WR) == 0 && hangs_up(client.get()); }},
    };
    return all;
}

}  // namespace

TEST_CASE("a client that misbehaves is dropped, leaks nothing, and the next one is served") {
    const Folder folder;
    for (const Misbehaviour& misbehaviour : misbehaviours()) {
        INFO("a client that " << misbehaviour.name);
        const Held before;
        {
            Aside listener = listening(folder.file());
            {
                const Descriptor client = raw_client(folder.file());
                REQUIRE(client);
                REQUIRE(misbehaviour.act(client));
            }
            REQUIRE_FALSE(listener.done());
            check_served(listener, folder.file());
        }
        REQUIRE(Held{} == before);
    }
}

TEST_CASE("clients that misbehave all at once and stay do not keep a good one out") {
    const Folder folder;
    const Held before;
    {
        Aside listener = listening(folder.file());
        std::vector<Descriptor> clients;
        const Hello hello = good_hello();
        for (int i = 0; i < 8; ++i) {
            clients.push_back(raw_client(folder.file()));  // silent
            clients.push_back(raw_client(folder.file()));
            REQUIRE(send_raw(clients.back().get(), &hello, 63));  // one byte is missing
            clients.push_back(raw_client(folder.file()));
            REQUIRE(send_raw(clients.back().get(), "garbage", 7));
        }
        check_served(listener, folder.file());
        for (const Descriptor& client : clients) CHECK(hangs_up(client.get()));
    }
    CHECK(Held{} == before);
}

TEST_CASE("more silent clients than a listener keeps are dropped, the oldest first") {
    const Folder folder;
    const Held before;
    {
        Aside listener = listening(folder.file());
        std::vector<Descriptor> clients;
        for (int i = 0; i < 150; ++i) {
            clients.push_back(raw_client(folder.file()));
            REQUIRE(clients.back());
        }
        CHECK(hangs_up(clients.front().get()));
        check_served(listener, folder.file());
    }
    CHECK(Held{} == before);
}

TEST_CASE("memory that was offered to one client is never given to another") {
    const Folder folder;
    Aside listener = listening(folder.file());
    Received offer;
    {
        const Descriptor client = raw_client(folder.file());
        const Hello hello = good_hello();
        REQUIRE(send_raw(client.get(), &hello, sizeof hello));
        offer = receive_raw(client.get());
        REQUIRE(offer.descriptors.size() == 1);
    }
    const Established good = connect(folder.file(), connect_options());
    REQUIRE(listener.join().established);
    // By hand: it is the old memory of a client that was dropped, most of which has been taken back.
    void* const stolen =
        ::mmap(nullptr, kHeaderBytes + kCapacity, PROT_READ | PROT_WRITE, MAP_SHARED, offer.descriptors[0].get(), 0);
    REQUIRE(stolen != MAP_FAILED);
    static_cast<SegmentHeader*>(stolen)->read_position.store(666);
    CHECK(good.segments[0].header()->read_position.load() == 0);
    CHECK(listener.join().established->segments[0].header()->read_position.load() == 0);
    ::munmap(stolen, kHeaderBytes + kCapacity);
}

TEST_CASE("a client that takes the offer and says no more keeps the next one waiting, but not for ever") {
    const Folder folder;
    const Held before;
    {
        Aside listener = listening(folder.file());
        const Descriptor client = raw_client(folder.file());
        const Hello hello = good_hello();
        REQUIRE(send_raw(client.get(), &hello, sizeof hello));
        REQUIRE(receive_raw(client.get()).complete);
        {
            const Descriptor next = raw_client(folder.file());
            REQUIRE(send_raw(next.get(), &hello, sizeof hello));
            CHECK_FALSE(readable(next.get(), 300));  // one offer at a time
        }
        check_served(listener, folder.file());
        CHECK(hangs_up(client.get()));
    }
    CHECK(Held{} == before);
}

TEST_CASE("a client of the other kind ends the listener too, and both are told") {
    const Folder folder;
    const Held before;
    {
        Aside listener = listening(folder.file());
        ConnectOptions options = connect_options();
        options.kind = Kind::rpc;
        options.segments = 2;
        try {
            (void)connect(folder.file(), options);
            FAIL("connected");
        } catch (const SetupError& error) {
            CHECK(error.failure() == SetupFailure::handshake);
            CHECK(error.error_number() == EPROTOTYPE);
            CHECK(contains(error.what(), "RpcBus"));
        }
        const Outcome& outcome = listener.join();
        CHECK(outcome.failure == SetupFailure::handshake);
        CHECK(outcome.error_number == EPROTOTYPE);
        CHECK(contains(outcome.what, "RpcBus"));
    }
    CHECK(folder.entries().empty());
    CHECK(Held{} == before);
}

TEST_CASE("a kind that does not exist is no crash") {
    const Folder folder;
    Aside listener = listening(folder.file());
    const Descriptor client = raw_client(folder.file());
    Hello hello = good_hello();
    hello.kind = 999;
    CHECK(rejected_with(client, hello, Verdict::wrong_kind));
    CHECK(listener.join().failure == SetupFailure::handshake);
}

// ---- time and interrupts -------------------------------------------------------------------------------------------------

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
        const Segment segment = Segment::create(kCapacity);
        Hello hello = good_hello();
        hello.segments = 1;
        hello.capacity[0] = kCapacity;
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

// ---- listeners that misbehave ----------------------------------------------------------------------------------------------

namespace {

// What a connector makes of a listener that answers with this.
Outcome answered_with(const Hello& hello, const std::vector<int>& descriptors, const std::string& then = "R",
                      std::size_t bytes = sizeof(Hello)) {
    const Folder folder;
    const Descriptor listener = raw_listener(folder.file());
    ConnectOptions options;  // once: a refusal must not look like a timeout
    Aside client = connecting(folder.file(), options);
    Descriptor socket = raw_accept(listener);
    REQUIRE(receive_raw(socket.get()).complete);
    REQUIRE(send_raw(socket.get(), &hello, bytes, descriptors));
    if (!then.empty()) (void)send_raw(socket.get(), then.data(), then.size());
    if (bytes < sizeof(Hello) || then.empty()) socket.reset();
    Outcome outcome;
    std::swap(outcome, client.join());
    return outcome;
}

Hello offer(std::uint64_t capacity = kCapacity, std::uint32_t segments = 1) {
    Hello hello = good_hello();
    hello.segments = segments;
    hello.capacity[0] = capacity;
    return hello;
}

Descriptor memory_file(std::uint64_t bytes, int seals) {
    Descriptor memory(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(::ftruncate(memory.get(), static_cast<off_t>(bytes)) == 0);
    REQUIRE(::fallocate(memory.get(), 0, 0, static_cast<off_t>(bytes)) == 0);
    REQUIRE(::fcntl(memory.get(), F_ADD_SEALS, seals) == 0);
    return memory;
}

}  // namespace

TEST_CASE("a listener that says the wrong thing is refused, with the reason, and leaks nothing") {
    const Held before;
    {
        const Segment segment = Segment::create(kCapacity);
        const int right = segment.descriptor();
        const auto expect = [&](const Outcome& outcome, int error_number, const char* part) {
            INFO(outcome.what << " should mention " << part);
            CHECK(outcome.failure == SetupFailure::handshake);
            CHECK(outcome.error_number == error_number);
            CHECK(contains(outcome.what, part));
            CHECK_FALSE(outcome.established);
        };
        Hello hello = offer();
        CHECK(answered_with(hello, {right}).established);  // the one that the others differ from

        hello = offer();
        hello.magic[0] = 't';
        expect(answered_with(hello, {right}), EPROTO, "does not speak");
        hello = offer();
        hello.byte_order = 0x04030201;
        expect(answered_with(hello, {right}), EPROTO, "byte order");
        hello = offer();
        hello.version = kProtocolVersion + 1;
        expect(answered_with(hello, {right}), EPROTONOSUPPORT, "version");
        hello = offer();
        hello.layout_hash ^= 1;
        expect(answered_with(hello, {right}), EPROTONOSUPPORT, "layout");
        hello = offer();
        hello.kind = static_cast<std::uint16_t>(Kind::rpc);
        expect(answered_with(hello, {right}), EPROTOTYPE, "RpcBus");
        hello = offer();
        hello.kind = 77;
        expect(answered_with(hello, {right}), EPROTOTYPE, "unknown");
        hello = offer();
        hello.verdict = static_cast<std::uint32_t>(Verdict::wrong_user);
        expect(answered_with(hello, {}), EACCES, "refuses user");
        hello = offer();
        hello.verdict = 99;
        expect(answered_with(hello, {right}), EPROTO, "99");

        expect(answered_with(offer(), {}), EPROTO, "passed 0 descriptors");
        expect(answered_with(offer(kCapacity, 0), {}), EPROTO, "passed 0 descriptors");
        expect(answered_with(offer(kCapacity, 2), {right}), EPROTO, "passed 1 descriptors");
        expect(answered_with(offer(), {right, right}), EPROTO, "more descriptors");
        expect(answered_with(offer(), times(right, 3)), EPROTO, "more descriptors");
        expect(answered_with(offer(), times(right, 200)), EPROTO, "more descriptors");

        expect(answered_with(offer(2 * kCapacity), {right}), EPROTO, "bytes, not");
        expect(answered_with(offer(kCapacity / 2), {right}), EPROTO, "bytes, not");
        expect(answered_with(offer(0), {right}), EPROTO, "capacity");
        expect(answered_with(offer(~std::uint64_t{0}), {right}), EPROTO, "capacity");
        expect(answered_with(offer(), {0}), EPROTO, "not a memfd");
        const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
        expect(answered_with(offer(), {null.get()}), EPROTO, "not a memfd");
        const Descriptor unsealed = memory_file(kHeaderBytes + kCapacity, 0);
        expect(answered_with(offer(), {unsealed.get()}), EPROTO, "resized");
        const Descriptor short_one = memory_file(kHeaderBytes, kSeals);
        expect(answered_with(offer(), {short_one.get()}), EPROTO, "bytes, not");
        const Descriptor blank = memory_file(kHeaderBytes + kCapacity, kSeals);
        expect(answered_with(offer(), {blank.get()}), EPROTO, "header page");
        const Descriptor reading(::open(("/proc/self/fd/" + std::to_string(right)).c_str(), O_RDONLY | O_CLOEXEC));
        expect(answered_with(offer(), {reading.get()}), EPROTO, "cannot be written");

        expect(answered_with(offer(), {right}, "X"), EPROTO, "did not end");
        expect(answered_with(offer(), {right}, ""), ECONNRESET, "hung up");
        expect(answered_with(offer(), {right}, "", 30), ECONNRESET, "hung up");
    }
    CHECK(Held{} == before);
}

TEST_CASE("a descriptor too many is noticed even where the kernel has cut it off") {
    const Folder folder;
    const Held before;
    for (const std::size_t passed : {2u, 3u, 50u}) {  // two is right, and all there is room for
        const Segment segment = Segment::create(kCapacity);
        const Descriptor listener = raw_listener(folder.file());
        ConnectOptions options;
        options.kind = Kind::rpc;
        options.segments = 2;
        Aside client = connecting(folder.file(), options);
        const Descriptor socket = raw_accept(listener);
        REQUIRE(receive_raw(socket.get()).complete);
        Hello hello = offer(kCapacity, 2);
        hello.kind = static_cast<std::uint16_t>(Kind::rpc);
        hello.capacity[1] = kCapacity;
        REQUIRE(send_raw(socket.get(), &hello, sizeof hello, times(segment.descriptor(), passed)));
        const bool heard = send_raw(socket.get(), "R", 1);  // a connector that has been put off may be gone by now
        REQUIRE((heard || passed != 2));
        CHECK(client.join().established.has_value() == (passed == 2));
        CHECK((passed == 2 || contains(client.join().what, "more descriptors")));
        REQUIRE(::unlink(folder.file().c_str()) == 0);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a refusal that comes before the connector has said anything is still understood") {
    const Folder folder;
    const Held before;
    for (int round = 0; round < 20; ++round) {
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file(), ConnectOptions{});
        {
            const Descriptor socket = raw_accept(listener);
            Hello hello = good_hello();
            hello.verdict = static_cast<std::uint32_t>(Verdict::wrong_user);
            REQUIRE(send_raw(socket.get(), &hello, sizeof hello));
        }
        INFO(client.join().what);
        REQUIRE(client.join().error_number == EACCES);
        REQUIRE(::unlink(folder.file().c_str()) == 0);
    }
    CHECK(Held{} == before);
}

// ---- fuzz ----------------------------------------------------------------------------------------------------------------

TEST_CASE("whatever clients do, a listener neither breaks nor leaks, and goes on serving") {
    const Folder folder;
    Random random(31);
    const Held before;
    const std::uint64_t until = in_ms(long_form() ? 300'000 : 2'000);
    std::uint64_t cases = 0;
    while (now_ns() < until) {
        Aside listener = listening(folder.file(), listen_options(64));
        std::vector<Descriptor> kept;
        for (int i = 0; i < 100; ++i, ++cases) {
            Descriptor client = raw_client(folder.file());
            REQUIRE(client);
            const Hello hello = good_hello();
            char bytes[256];
            std::memcpy(bytes, &hello, sizeof hello);
            for (std::uint64_t n = random.below(3); n > 0; --n) {
                const std::uint64_t at = random.below(sizeof hello);
                if (at != 14 && at != 15)
                    bytes[at] = static_cast<char>(random.next());  // another kind would end the listener
            }
            std::size_t size = random.one_in(3) ? random.below(sizeof bytes) : sizeof hello + random.below(2);
            std::vector<int> descriptors;
            if (random.one_in(3)) descriptors = times(client.get(), random.below(6));
            if (size == 0) descriptors.clear();
            if (size > 64) bytes[64] = random.one_in(2) ? 'x' : '\0';  // never the last word: it would be let in
            (void)send_raw(client.get(), bytes, size, descriptors);
            if (random.one_in(8)) {
                (void)::shutdown(client.get(), SHUT_WR);
            }
            if (random.one_in(4)) kept.push_back(std::move(client));
            if (kept.size() > 20) kept.clear();
        }
        REQUIRE_FALSE(listener.done());
        kept.clear();
        check_served(listener, folder.file());
    }
    CHECK(Held{} == before);
    CHECK(cases > 100);
}

// ---- the peer's end ------------------------------------------------------------------------------------------------------

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

TEST_CASE("a ring larger than the connector allows is refused, and another connector served") {
    const Folder folder;
    Aside server = listening(folder.file());
    ConnectOptions options = connect_options();
    options.max_capacity = kCapacity - 1;
    {
        Aside client = connecting(folder.file(), options);
        CHECK(client.join().failure == SetupFailure::handshake);
        CHECK(client.join().error_number == EFBIG);
        CHECK(contains(client.join().what, std::to_string(kCapacity) + " bytes, more than 4095"));
        CHECK(contains(client.join().what, "max_capacity="));
    }
    options.max_capacity = kCapacity;
    Aside client = connecting(folder.file(), options);
    INFO(client.join().what);
    CHECK(client.join().established);
    CHECK(server.join().established);
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
