// A segment arranged for a ring: the header page, and what of it is checked. The memory itself: segment.tests.cpp.
#include "tachyon/ring/ring_segment.hpp"

#include "catch.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr std::uint64_t kCapacity = 4096;

Descriptor copy_of(int number) { return Descriptor(::fcntl(number, F_DUPFD_CLOEXEC, 0)); }

// What a peer might pass instead of a segment.
Descriptor forged(std::uint64_t bytes, int seals, std::uint64_t header_capacity = kCapacity,
                  std::uint64_t magic = kSegmentMagic, std::uint32_t version = kProtocolVersion,
                  std::uint32_t header_bytes = kHeaderBytes) {
    Descriptor memory(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(memory);
    REQUIRE(::ftruncate(memory.get(), static_cast<off_t>(bytes)) == 0);
    REQUIRE(reserve(memory.get(), bytes));
    if (bytes >= 24) {
        REQUIRE(::pwrite(memory.get(), &magic, 8, 0) == 8);
        REQUIRE(::pwrite(memory.get(), &version, 4, 8) == 4);
        REQUIRE(::pwrite(memory.get(), &header_bytes, 4, 12) == 4);
        REQUIRE(::pwrite(memory.get(), &header_capacity, 8, 16) == 8);
    }
    REQUIRE(::fcntl(memory.get(), F_ADD_SEALS, seals) == 0);
    return memory;
}

// How attaching fails; nothing may be left of the attempt.
std::string refusal(Descriptor descriptor, std::uint64_t capacity = kCapacity) {
    const std::size_t mappings = count_segment_mappings();
    const std::size_t descriptors = count_descriptors() - (descriptor ? 1 : 0);
    std::string what = "attached";
    try {
        const RingSegment segment = RingSegment::attach(std::move(descriptor), capacity);
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::handshake);
        what = error.what();
    }
    CHECK(count_segment_mappings() == mappings);
    CHECK(count_descriptors() == descriptors);
    return what;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a new ring has a header page that says what it is, and is empty") {
    for (const std::uint64_t capacity : {std::uint64_t{64}, std::uint64_t{4096}, std::uint64_t{1} << 20}) {
        const RingSegment segment = RingSegment::create(capacity);
        CHECK(segment.capacity() == capacity);
        const SegmentHeader& header = *segment.header();
        CHECK(header.magic == kSegmentMagic);
        CHECK(header.version == kProtocolVersion);
        CHECK(header.header_bytes == kHeaderBytes);
        CHECK(header.capacity == capacity);
        CHECK(header.read_position.load() == 0);
        CHECK(header.producer_side.load() == 0);
        const RingMemory ring = segment.ring(Barrier::membarrier);
        CHECK(ring.capacity == capacity);
        CHECK(ring.barrier == Barrier::membarrier);
        CHECK(ring.data == reinterpret_cast<const std::uint8_t*>(segment.header()) + kHeaderBytes);
        std::uint64_t sum = 0;
        for (std::uint64_t i = 0; i < capacity; ++i) sum += ring.data[i];
        CHECK(sum == 0);
    }
}

TEST_CASE("both ends see the same ring") {
    RingSegment ours = RingSegment::create(kCapacity);
    const RingSegment theirs = RingSegment::attach(copy_of(ours.descriptor()), kCapacity);
    CHECK(theirs.capacity() == kCapacity);
    CHECK(theirs.header() != ours.header());
    ours.close_descriptor();
    CHECK(ours.descriptor() == -1);
    ours.ring(Barrier::locked).data[kCapacity - 1] = 42;
    CHECK(theirs.ring(Barrier::locked).data[kCapacity - 1] == 42);
    theirs.header()->read_position.store(7);
    CHECK(ours.header()->read_position.load() == 7);
}

TEST_CASE("a capacity that is not a power of two within the bounds is named and refused") {
    const Held before;
    for (const std::uint64_t capacity : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{63}, std::uint64_t{65},
                                         std::uint64_t{4097}, kMaxCapacity * 2, ~std::uint64_t{0}}) {
        try {
            (void)RingSegment::create(capacity);
            FAIL("no error for " << capacity);
        } catch (const SetupError& error) {
            CHECK(error.failure() == SetupFailure::capacity);
            CHECK(contains(error.what(), std::to_string(capacity)));
            CHECK(contains(error.what(), std::to_string(kMinCapacity)));
            CHECK(contains(error.what(), std::to_string(kMaxCapacity)));
        }
    }
    CHECK(Held{} == before);
}

TEST_CASE("reserving and mapping much memory look at the deadline and ask for an interrupt, and leave nothing") {
    constexpr std::uint64_t kLarge = 1 << 28;
    const Held before;
    const auto failure_of = [](auto call) -> int {
        try {
            call();
        } catch (const SetupError& error) {
            return static_cast<int>(error.failure());
        }
        return -1;
    };
    const Interrupt at_once{[](void*) { return true; }, nullptr};
    {
        RingSegment whole = RingSegment::create(kLarge);
        CHECK(failure_of([&] { (void)RingSegment::attach(copy_of(whole.descriptor()), kLarge, {1, {}}); }) ==
              static_cast<int>(SetupFailure::timed_out));
        CHECK(failure_of([&] { (void)RingSegment::attach(copy_of(whole.descriptor()), kLarge, {kNever, at_once}); }) ==
              static_cast<int>(SetupFailure::interrupted));
    }
    CHECK(failure_of([&] { (void)RingSegment::create(kLarge, {1, {}}); }) == static_cast<int>(SetupFailure::timed_out));
    CHECK(failure_of([&] { (void)RingSegment::create(kLarge, {kNever, at_once}); }) ==
          static_cast<int>(SetupFailure::interrupted));
    CHECK(Held{} == before);
}

TEST_CASE("a forged ring with everything right is accepted, so the refusals below have their one reason") {
    CHECK(refusal(forged(kHeaderBytes + kCapacity, kSeals)) == "attached");
}

TEST_CASE("a ring in memory that may not be mapped is refused") {
    CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, 0)), "resized"));
    CHECK(contains(refusal(forged(kHeaderBytes, kSeals)), "bytes, not"));
    CHECK(contains(refusal(forged(kHeaderBytes + 2 * kCapacity, kSeals)), "bytes, not"));
    const Descriptor whole = forged(kHeaderBytes + kCapacity, kSeals);
    const std::string path = "/proc/self/fd/" + std::to_string(whole.get());
    CHECK(contains(refusal(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC))), "cannot be written"));
}

TEST_CASE("a ring's memory that is given back while it is being mapped is not taken anew") {
    constexpr std::uint64_t kLarge = 1 << 28;
    const Descriptor memory = forged(kHeaderBytes + kLarge, kSeals, kLarge);
    int number = memory.get();
    // Asked between two pieces.
    const Interrupt punch{[](void* at) {
                              ::fallocate(*static_cast<int*>(at), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                          kHeaderBytes, kLarge);
                              return false;
                          },
                          &number};
    std::string what;
    try {
        (void)RingSegment::attach(copy_of(number), kLarge, {kNever, punch});
    } catch (const SetupError& error) {
        what = error.what();
    }
    CHECK(contains(what, "has not reserved"));
    struct stat status{};
    REQUIRE(::fstat(number, &status) == 0);
    CHECK(status.st_blocks * 512 <= static_cast<blkcnt_t>(kHeaderBytes));
}

TEST_CASE("a capacity in the handshake that no segment has is refused") {
    for (const std::uint64_t capacity :
         {std::uint64_t{0}, std::uint64_t{63}, std::uint64_t{96}, ~std::uint64_t{0}, kMaxCapacity * 2}) {
        CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals), capacity), "capacity"));
    }
}

TEST_CASE("a header page that contradicts the handshake is refused, and nothing stays mapped") {
    CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals, 2 * kCapacity)), "header page"));
    CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals, kCapacity, kSegmentMagic + 1)), "header page"));
    CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals, kCapacity, kSegmentMagic, kProtocolVersion + 1)),
                   "header page"));
    CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals, kCapacity, kSegmentMagic, kProtocolVersion, 8192)),
                   "header page"));
}

TEST_CASE("a ring that has been moved away has no memory and no capacity") {
    const Held before;
    {
        RingSegment first = RingSegment::create(kCapacity);
        const RingSegment second = std::move(first);
        CHECK(first.header() == nullptr);
        CHECK(first.descriptor() == -1);
        CHECK(first.capacity() == 0);
        CHECK(second.capacity() == kCapacity);
        second.header()->read_position.store(1);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a ring on a NUMA node that cannot exist is an error, and the first does no harm") {
    const RingSegment segment = RingSegment::create(kCapacity);
    CHECK(segment.bind_to_node(1u << 20) == EINVAL);
    (void)segment.bind_to_node(0);
    CHECK(segment.header()->magic == kSegmentMagic);
}
