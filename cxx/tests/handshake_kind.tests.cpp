// A kind of one's own: other segments, other access, and a schema, over the same handshake.
#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"
#include "tachyon/listener.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kMark = 0x5af3;

// Three segments, of which the connector may write to the second one only.
SegmentOffer describe(std::size_t index, std::uint64_t capacity) {
    if (capacity == 0 || capacity % 8 != 0) throw SetupError(SetupFailure::capacity, EINVAL, "eights, please");
    const Access access = index == 1 ? Access::read_write : Access::read_only;
    return {8 + capacity, capacity, static_cast<std::uint32_t>(access), 0};
}
std::uint64_t& word(const Segment& segment, std::size_t index) {
    return static_cast<std::uint64_t*>(segment.memory())[index];
}
void arrange(const Segment& segment, const SegmentOffer& offer) noexcept { word(segment, 0) = kMark + offer.capacity; }
const char* refusal(const Segment& segment, const SegmentOffer& offer) noexcept {
    return word(segment, 0) == kMark + offer.capacity ? nullptr : "it bears another mark";
}

constexpr Arrangement kBoard{.kind = static_cast<Kind>(900),
                             .name = "Board",
                             .version = 7,
                             .hash = 0x1234,
                             .segments = 3,
                             .max_schema = 100,
                             .kept = 8,
                             .describe = describe,
                             .arrange = arrange,
                             .refusal = refusal};

ListenOptions board_options(std::string schema = {}) {
    ListenOptions options = listen_options();
    options.capacities = {8, 4096, 1 << 20};
    options.arrangement = &kBoard;
    options.schema = std::move(schema);
    return options;
}
ConnectOptions to_board(std::string schema = {}, const Arrangement& arrangement = kBoard) {
    ConnectOptions options = connect_options();
    options.arrangement = &arrangement;
    options.schema = std::move(schema);
    return options;
}

}  // namespace

TEST_CASE("a kind of its own has its segments, each with its access, and both say what is in them") {
    const Folder folder;
    const Held before;
    {
        Aside listener = listening(folder.file(), board_options("two columns"));
        Established there = connect(folder.file(), to_board(std::string("\0rows", 5)));
        REQUIRE(listener.join().established);
        Established& here = *listener.join().established;
        CHECK(there.schema == "two columns");
        CHECK(here.schema == std::string("\0rows", 5));
        REQUIRE(here.segments.size() == 3);
        REQUIRE(there.segments.size() == 3);
        for (std::size_t i = 0; i < 3; ++i) {
            CHECK(here.segments[i].bytes() == there.segments[i].bytes());
            CHECK(here.segments[i].access() == Access::read_write);
            CHECK(there.segments[i].access() == (i == 1 ? Access::read_write : Access::read_only));
            CHECK(there.segments[i].descriptor() == -1);
            word(here.segments[i], 1) = 40 + i;
            CHECK(word(there.segments[i], 1) == 40 + i);
            const int rc = ::mprotect(there.segments[i].memory(), there.segments[i].bytes(), PROT_READ | PROT_WRITE);
            CHECK((rc == 0) == (i == 1));
        }
        word(there.segments[1], 1) = 99;
        CHECK(word(here.segments[1], 1) == 99);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a listener for many serves a kind of its own too") {
    const Folder folder;
    Listener listener(folder.file(), board_options("a"));
    for (int i = 0; i < 2; ++i) {
        Aside client = connecting(folder.file(), to_board("b"));
        const Established here = listener.accept(in_ms(30'000));
        CHECK(here.schema == "b");
        INFO(client.join().what);
        REQUIRE(client.join().established);
        CHECK(client.join().established->schema == "a");
    }
}

TEST_CASE("a kind of which the two sides know other things does not come about") {
    const auto what_of = [](const Arrangement& arrangement) {
        const Folder folder;
        Listener listener(folder.file(), board_options());
        Aside client = connecting(folder.file(), to_board({}, arrangement));
        CHECK(eventually([&] {
            CHECK_FALSE(listener.try_accept());
            return client.done();
        }));
        return client.join().what;
    };
    Arrangement other = kBoard;
    SECTION("another version") {
        other.version = 8;
        CHECK(contains(what_of(other), "version 7, this side 8"));
    }
    SECTION("another layout") {
        other.hash ^= 1;
        CHECK(contains(what_of(other), "another memory layout"));
    }
    SECTION("more segments") {
        other.segments = 4;
        CHECK(contains(what_of(other), "passed 3 descriptors, not 4"));
    }
    SECTION("fewer segments") {
        other.segments = 2;
        CHECK(contains(what_of(other), "more descriptors"));
    }
    SECTION("other access") {
        other.describe = [](std::size_t index, std::uint64_t capacity) {
            SegmentOffer offer = describe(index, capacity);
            offer.access = static_cast<std::uint32_t>(Access::read_write);
            return offer;
        };
        CHECK(contains(what_of(other), "access"));
    }
    SECTION("another size for the same capacity") {
        other.describe = [](std::size_t index, std::uint64_t capacity) {
            SegmentOffer offer = describe(index, capacity);
            offer.bytes += 8;
            return offer;
        };
        CHECK(contains(what_of(other), "16 bytes"));
    }
    SECTION("other contents") {
        other.refusal = [](const Segment&, const SegmentOffer&) noexcept -> const char* { return "I do not like it"; };
        CHECK(contains(what_of(other), "I do not like it"));
    }
    SECTION("a bus") { CHECK(contains(what_of(arrangement_of(Kind::bus)), "unknown kind listens")); }
}

TEST_CASE("more is not said of the contents than a kind allows") {
    const Folder folder;
    const auto refused = [](const auto& call) {
        try {
            call();
        } catch (const SetupError& error) {
            return error.failure() == SetupFailure::handshake && error.error_number() == EMSGSIZE;
        }
        return false;
    };
    CHECK(refused([&] { (void)listen(folder.file(), board_options(std::string(101, 'x'))); }));
    CHECK(refused([&] { (void)connect(folder.file(), to_board(std::string(101, 'x'))); }));
    ListenOptions of_a_bus = listen_options();
    of_a_bus.schema.assign(1, 'x');
    CHECK(refused([&] { (void)listen(folder.file(), of_a_bus); }));
    Arrangement wordy = kBoard;
    wordy.max_schema = 1 << 20;
    CHECK(refused([&] { (void)connect(folder.file(), to_board(std::string(kMaxSchema + 1, 'x'), wordy)); }));
    CHECK(folder.entries().empty());

    // And not believed when a peer says more.
    Listener listener(folder.file(), board_options());
    Aside client = connecting(folder.file(), to_board(std::string(101, 'x'), wordy));
    sleep_us(20'000);
    CHECK_FALSE(listener.try_accept());
    client.interrupt();
    CHECK_FALSE(client.join().established);
}

TEST_CASE("the longest schema there is fits into one hello, whole") {
    const Folder folder;
    Arrangement wordy = kBoard;
    wordy.max_schema = kMaxSchema;
    ListenOptions options = board_options(std::string(kMaxSchema, 'l'));
    options.arrangement = &wordy;
    Aside listener = listening(folder.file(), options);
    const Established there = connect(folder.file(), to_board(std::string(kMaxSchema, 'c'), wordy));
    CHECK(there.schema == std::string(kMaxSchema, 'l'));
    REQUIRE(listener.join().established);
    CHECK(listener.join().established->schema == std::string(kMaxSchema, 'c'));
}

TEST_CASE("as many capacities as a kind has segments, and such as it can have") {
    const Folder folder;
    const auto failure_of = [&](std::vector<std::uint64_t> capacities, const Arrangement* arrangement) {
        ListenOptions options = listen_options();
        options.capacities = std::move(capacities);
        options.arrangement = arrangement;
        return listening(folder.file(), options).join().failure;
    };
    CHECK(failure_of({8, 8}, &kBoard) == SetupFailure::capacity);
    CHECK(failure_of({8, 8, 8, 8}, &kBoard) == SetupFailure::capacity);
    CHECK(failure_of({8, 8, 9}, &kBoard) == SetupFailure::capacity);
    CHECK(failure_of({}, nullptr) == SetupFailure::capacity);
    CHECK(failure_of({4096, 4096}, nullptr) == SetupFailure::capacity);
}
