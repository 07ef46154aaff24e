// Clients that misbehave, to a listener for one.
#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

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
           answer.descriptors.empty() && answer.hello.version == kHelloVersion && hangs_up(client.get());
}

bool dropped_after(const Descriptor& client, const Hello& hello, const std::vector<int>& descriptors = {}) {
    if (!send_raw(client.get(), &hello, sizeof hello, descriptors)) return false;
    const std::string rest(hello.bytes > sizeof hello && hello.bytes <= kMaxHello ? hello.bytes - sizeof hello : 0,
                           'x');
    if (!rest.empty()) (void)send_raw(client.get(), rest.data(), rest.size());  // it may have been dropped by now
    char byte = 0;                                                              // not a word before the end
    return readable(client.get()) && ::recv(client.get(), &byte, 1, 0) <= 0;
}

const std::vector<Misbehaviour>& misbehaviours() {
    static const std::vector<Misbehaviour> all{
        {"hangs up at once", [](const Descriptor&) { return true; }},
        {"sends half a hello and hangs up",
         [](const Descriptor& client) {
             const Hello hello = good_hello();
             return send_raw(client.get(), &hello, sizeof hello / 2);
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
             hello.version = hello.oldest = kHelloVersion + 1;
             return rejected_with(client, hello, Verdict::wrong_version);
         }},
        {"has another layout",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.hello_hash ^= 1;
             return rejected_with(client, hello, Verdict::wrong_layout);
         }},
        {"has another version of the ring",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             ++hello.arrangement;
             return rejected_with(client, hello, Verdict::wrong_version);
         }},
        {"has another layout of the ring",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.arrangement_hash ^= 1;
             return rejected_with(client, hello, Verdict::wrong_layout);
         }},
        {"says that its hello is shorter than any",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.bytes = sizeof hello - 1;
             return dropped_after(client, hello);
         }},
        {"says that its hello is longer than any",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.version = kHelloVersion + 1;
             hello.bytes = kMaxHello + 1;
             return dropped_after(client, hello);
         }},
        {"says that its hello of this version is longer than it is",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.bytes += 8;
             return dropped_after(client, hello);
         }},
        {"has a schema, which a bus has not",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.bytes += 8;
             hello.schema_bytes = 8;
             return dropped_after(client, hello);
         }},
        {"has a schema longer than its hello",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.schema_bytes = 0xffffffffu;
             return dropped_after(client, hello);
         }},
        {"gives a verdict, as a listener does",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.verdict = 1;
             return dropped_after(client, hello);
         }},
        {"offers segments, as a listener does",
         [](const Descriptor& client) { return dropped_after(client, offer()); }},
        {"offers a segment without counting it",
         [](const Descriptor& client) {
             Hello hello = good_hello();
             hello.offers[kMaxSegments - 1].capacity = 64;
             return dropped_after(client, hello);
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
             return send_raw(client.get(), &hello, sizeof hello - 1) &&
                    send_raw(client.get(), reinterpret_cast<const char*>(&hello + 1) - 1, 1, {client.get()}) &&
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

TEST_CASE("a client that is dropped or refused for what it says finds the answer and then the end, and is not reset") {
    const Folder folder;
    Aside listener = listening(folder.file());
    const auto ends = [&](const Hello& hello, bool answered) {
        const Descriptor client = raw_client(folder.file());
        if (!send_raw(client.get(), &hello, sizeof hello)) return false;
        if (answered && !receive_raw(client.get()).complete) return false;
        char byte = 0;
        if (!readable(client.get())) return false;
        sleep_us(20'000);  // the end comes before the reset that may follow it
        return ::recv(client.get(), &byte, 1, 0) == 0;
    };
    Hello hello = good_hello();
    hello.magic[0] = 't';
    CHECK(ends(hello, false));
    hello = good_hello();
    hello.bytes = 1;
    CHECK(ends(hello, false));
    hello = good_hello();
    hello.oldest = hello.version = kHelloVersion + 1;
    CHECK(ends(hello, true));
    hello = good_hello();
    hello.hello_hash ^= 1;
    CHECK(ends(hello, true));
    check_served(listener, folder.file());
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
            REQUIRE(send_raw(clients.back().get(), &hello, sizeof hello - 1));  // one byte is missing
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
    CHECK(header_of(good.segments[0])->read_position.load() == 0);
    CHECK(header_of(listener.join().established->segments[0])->read_position.load() == 0);
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
            char bytes[512] = {};
            std::memcpy(bytes, &hello, sizeof hello);
            for (std::uint64_t n = random.below(3); n > 0; --n) {
                const std::uint64_t at = random.below(sizeof hello);
                if (at - offsetof(Hello, kind) > 1)
                    bytes[at] = static_cast<char>(random.next());  // another kind would end the listener
            }
            std::size_t size = random.one_in(3) ? random.below(sizeof bytes) : sizeof hello + random.below(2);
            std::vector<int> descriptors;
            if (random.one_in(3)) descriptors = times(client.get(), random.below(6));
            if (size == 0) descriptors.clear();
            if (size > sizeof hello)
                bytes[sizeof hello] = random.one_in(2) ? 'x' : '\0';  // never the last word: it would be let in
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
