// What a hello is made of, and hellos of other versions. What clients and listeners may do wrong stands in handshake_*.tests.cpp.
#include "tachyon/link/hello.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

// ---- the layout ----------------------------------------------------------------------------------------------------------

namespace {

// Side by side from the first byte to the last, none twice and none left out.
template <std::size_t kCount>
bool covers(std::array<HelloField, kCount> fields, std::size_t bytes) {
    std::ranges::sort(fields, {}, &HelloField::offset);
    std::uint64_t at = 0;
    for (const HelloField& field : fields) {
        if (field.offset != at) return false;
        at += field.size;
    }
    return at == bytes;
}

std::uint32_t hash_with(const auto& change) {
    auto hello = kHelloFields;
    auto offer = kOfferFields;
    auto values = kHelloValues;
    change(hello, offer, values);
    return hash_hello(hello, offer, values);
}

}  // namespace

TEST_CASE("every byte of a hello, and of an offer in it, belongs to a field that the hash knows") {
    CHECK(covers(kHelloFields, sizeof(Hello)));
    CHECK(covers(kOfferFields, sizeof(SegmentOffer)));
}

TEST_CASE("whatever field of a hello moves, or changes its place or its size with another's, the hash changes") {
    const auto differs = [](const auto& change) { return hash_with(change) != hello_hash(); };
    CHECK(hash_with([](auto&, auto&, auto&) {}) == hello_hash());
    for (std::size_t i = 0; i < kHelloFields.size(); ++i) {
        INFO("field " << i);
        CHECK(differs([i](auto& hello, auto&, auto&) { hello[i].offset += 4; }));
        CHECK(differs([i](auto& hello, auto&, auto&) { hello[i].size *= 2; }));
        for (std::size_t j = 0; j < i; ++j) {
            INFO("and field " << j);
            CHECK(differs([i, j](auto& hello, auto&, auto&) { std::swap(hello[i], hello[j]); }));
            CHECK(differs([i, j](auto& hello, auto&, auto&) { std::swap(hello[i].offset, hello[j].offset); }));
        }
    }
    for (std::size_t i = 0; i < kOfferFields.size(); ++i) {
        INFO("field of an offer " << i);
        CHECK(differs([i](auto&, auto& offer, auto&) { offer[i].offset += 4; }));
        CHECK(differs([i](auto&, auto& offer, auto&) { offer[i].size *= 2; }));
        for (std::size_t j = 0; j < i; ++j) {
            CHECK(differs([i, j](auto&, auto& offer, auto&) { std::swap(offer[i], offer[j]); }));
        }
    }
}

TEST_CASE("whatever a value in a hello means another time, the hash changes") {
    for (std::size_t i = 0; i < kHelloValues.size(); ++i) {
        INFO("value " << i);
        CHECK(hash_with([i](auto&, auto&, auto& values) { ++values[i]; }) != hello_hash());
    }
}

// Whoever changes the hello, and with it this value, raises kHelloVersion too: then both lines change.
TEST_CASE("the hello of this version is the published one") {
    CHECK(kHelloVersion == 3);
    CHECK(kOldestHello == 3);
    CHECK(hello_hash() == 0x3033803bu);
}

// ---- other versions --------------------------------------------------------------------------------------------------------

namespace {

// As a later version may say it: with fields that we do not know.
std::vector<char> longer(Hello hello, std::size_t more) {
    hello.version = kHelloVersion + 1;
    hello.bytes = static_cast<std::uint32_t>(sizeof hello + more);
    std::vector<char> bytes(hello.bytes, 'R');  // none of it may be taken for the last word
    std::memcpy(bytes.data(), &hello, sizeof hello);
    return bytes;
}

Verdict verdict_on(const Descriptor& client, const void* bytes, std::size_t size) {
    if (!send_raw(client.get(), bytes, size)) return Verdict::accepted;
    const Received answer = receive_raw(client.get());
    const bool refused = answer.complete && answer.descriptors.empty() && hangs_up(client.get());
    return refused ? static_cast<Verdict>(answer.hello.verdict) : Verdict::accepted;
}

}  // namespace

TEST_CASE("a client of a later version that still understands ours is let in, however much more it says") {
    for (const std::size_t more : {std::size_t{1}, std::size_t{64}, kMaxHello - sizeof(Hello)}) {
        const Folder folder;
        const Held before;
        {
            Aside listener = listening(folder.file());
            const Descriptor client = raw_client(folder.file());
            const std::vector<char> bytes = longer(good_hello(), more);
            REQUIRE(send_raw(client.get(), bytes.data(), bytes.size()));
            const Received answer = receive_raw(client.get());
            REQUIRE(answer.complete);
            CHECK(answer.hello.verdict == static_cast<std::uint32_t>(Verdict::accepted));
            CHECK(answer.descriptors.size() == 1);
            CHECK_FALSE(listener.done());
            REQUIRE(send_raw(client.get(), "R", 1));
            CHECK(listener.join().established);
        }
        CHECK(Held{} == before);
    }
}

TEST_CASE("a listener of a later version that still understands ours is understood, however much more it says") {
    for (const std::size_t more : {std::size_t{1}, std::size_t{64}, kMaxHello - sizeof(Hello)}) {
        const Folder folder;
        const Held before;
        {
            const Descriptor listener = raw_listener(folder.file());
            Aside client = connecting(folder.file(), ConnectOptions{});
            const Descriptor socket = raw_accept(listener);
            REQUIRE(receive_raw(socket.get()).complete);
            const RingSegment segment = RingSegment::create(kCapacity);
            const std::vector<char> bytes = longer(offer(), more);
            REQUIRE(send_raw(socket.get(), bytes.data(), bytes.size(), {segment.descriptor()}));
            char ready = 0;
            REQUIRE(::recv(socket.get(), &ready, 1, 0) == 1);
            CHECK(ready == kReady);
            REQUIRE(send_raw(socket.get(), "R", 1));
            INFO(client.join().what);
            CHECK(client.join().established);
        }
        CHECK(Held{} == before);
    }
}

TEST_CASE("a hello of a version that does not understand ours is refused by its first words alone") {
    const Folder folder;
    const Held before;
    {
        Aside listener = listening(folder.file());
        Hello hello = good_hello();
        SECTION("a later one") {
            hello.version = kHelloVersion + 2;
            hello.oldest = kHelloVersion + 1;
            hello.bytes = 1u << 30;
        }
        SECTION("an older one") {
            hello.version = kOldestHello - 1;
            hello.oldest = 1;
            hello.bytes = 64;
        }
        SECTION("one that understands nothing, not even itself") { hello.oldest = hello.version + 1; }
        // No more than the prefix: the listener must not wait for what it could not read.
        CHECK(verdict_on(raw_client(folder.file()), &hello, kHelloPrefix) == Verdict::wrong_version);
        CHECK(verdict_on(raw_client(folder.file()), &hello, sizeof hello) == Verdict::wrong_version);
        REQUIRE_FALSE(listener.done());
        check_served(listener, folder.file());
    }
    CHECK(Held{} == before);
}

TEST_CASE("a hello of another layout is refused by its first words alone") {
    const Folder folder;
    Aside listener = listening(folder.file());
    Hello hello = good_hello();
    hello.hello_hash ^= 1;
    CHECK(verdict_on(raw_client(folder.file()), &hello, kHelloPrefix) == Verdict::wrong_layout);
    check_served(listener, folder.file());
}

TEST_CASE("a listener of another version is named, whatever else it says") {
    const auto what = [](const Hello& hello, std::size_t bytes) {
        const Folder folder;
        const Descriptor listener = raw_listener(folder.file());
        Aside client = connecting(folder.file(), ConnectOptions{});
        const Descriptor socket = raw_accept(listener);
        REQUIRE(receive_raw(socket.get()).complete);
        REQUIRE(send_raw(socket.get(), &hello, bytes));
        CHECK(client.join().error_number == EPROTONOSUPPORT);
        return client.join().what;
    };
    Hello hello = good_hello();
    hello.version = 77;
    hello.oldest = 70;
    CHECK(contains(what(hello, kHelloPrefix), "version 77, this side 3"));
    hello.version = 2;
    hello.oldest = 1;
    hello.verdict = static_cast<std::uint32_t>(Verdict::wrong_user);  // who knows what that means there
    CHECK(contains(what(hello, 64), "version 2, this side 3"));
    hello = good_hello();
    hello.arrangement = kProtocolVersion + 1;
    CHECK(contains(what(hello, sizeof hello), "version " + std::to_string(kProtocolVersion + 1) + ", this side"));
}
