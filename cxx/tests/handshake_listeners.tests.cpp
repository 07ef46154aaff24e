// Listeners that misbehave, and what a connector says of them.
#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

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

Descriptor memory_file(std::uint64_t bytes, int seals) {
    Descriptor memory(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(::ftruncate(memory.get(), static_cast<off_t>(bytes)) == 0);
    REQUIRE(reserve(memory.get(), bytes));
    REQUIRE(::fcntl(memory.get(), F_ADD_SEALS, seals) == 0);
    return memory;
}

}  // namespace

TEST_CASE("a listener that says the wrong thing is refused, with the reason, and leaks nothing") {
    const Held before;
    {
        const RingSegment segment = RingSegment::create(kCapacity);
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
        hello.version = hello.oldest = kHelloVersion + 1;
        expect(answered_with(hello, {right}), EPROTONOSUPPORT, "version");
        hello = offer();
        hello.hello_hash ^= 1;
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

        hello = offer();
        ++hello.arrangement;
        expect(answered_with(hello, {right}), EPROTONOSUPPORT, "version");
        hello = offer();
        hello.arrangement_hash ^= 1;
        expect(answered_with(hello, {right}), EPROTONOSUPPORT, "layout");
        for (const std::uint32_t bytes : {std::uint32_t{0}, std::uint32_t{sizeof hello - 1},
                                          std::uint32_t{sizeof hello + 1}, std::uint32_t{kMaxHello + 1}, 0xffffffffu}) {
            hello = offer();
            hello.bytes = bytes;
            expect(answered_with(hello, {right}), EPROTO, "contradicts itself");
        }
        hello = offer();
        hello.schema_bytes = 1;
        expect(answered_with(hello, {right}), EPROTO, "contradicts itself");
        hello = offer();
        hello.offers[1] = hello.offers[0];  // without counting it
        expect(answered_with(hello, {right}), EPROTO, "contradicts itself");
        hello = offer();
        ++hello.offers[0].bytes;
        expect(answered_with(hello, {right}), EPROTO, "takes");
        hello = offer();
        hello.offers[0].access = static_cast<std::uint32_t>(Access::read_only);
        expect(answered_with(hello, {right}), EPROTO, "access");
        hello = offer();
        hello.offers[0].access = 77;
        expect(answered_with(hello, {right}), EPROTO, "access");
        hello = offer();
        hello.offers[0].reserved = 1;
        expect(answered_with(hello, {right}), EPROTO, "refused");

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
        const RingSegment segment = RingSegment::create(kCapacity);
        const Descriptor listener = raw_listener(folder.file());
        ConnectOptions options;
        options.kind = Kind::rpc;
        Aside client = connecting(folder.file(), options);
        const Descriptor socket = raw_accept(listener);
        REQUIRE(receive_raw(socket.get()).complete);
        const Hello hello = offer(kCapacity, 2, Kind::rpc);
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
