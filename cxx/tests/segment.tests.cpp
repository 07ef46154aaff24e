#include "tachyon/shm/segment.hpp"

#include <sys/socket.h>

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
                  std::uint32_t header_bytes = kHeaderBytes, bool reserved = true) {
    Descriptor memory(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(memory);
    REQUIRE(::ftruncate(memory.get(), static_cast<off_t>(bytes)) == 0);
    if (reserved && bytes > 0) REQUIRE(::fallocate(memory.get(), 0, 0, static_cast<off_t>(bytes)) == 0);
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
        const Segment segment = Segment::attach(std::move(descriptor), capacity);
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

TEST_CASE("a new segment is sealed, of the exact size, close-on-exec and empty") {
    for (const std::uint64_t capacity : {std::uint64_t{64}, std::uint64_t{4096}, std::uint64_t{1} << 20}) {
        const Segment segment = Segment::create(capacity);
        CHECK(segment.capacity() == capacity);
        CHECK((::fcntl(segment.descriptor(), F_GET_SEALS) & kSeals) == kSeals);
        CHECK((::fcntl(segment.descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
        struct stat status{};
        REQUIRE(::fstat(segment.descriptor(), &status) == 0);
        CHECK(static_cast<std::uint64_t>(status.st_size) == kHeaderBytes + capacity);
        CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= kHeaderBytes + capacity);  // reserved, not promised
        CHECK(::ftruncate(segment.descriptor(), 0) != 0);
        CHECK(::ftruncate(segment.descriptor(), 1 << 22) != 0);
        CHECK(::fcntl(segment.descriptor(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
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

TEST_CASE("both ends see the same memory") {
    Segment ours = Segment::create(kCapacity);
    const Segment theirs = Segment::attach(copy_of(ours.descriptor()), kCapacity);
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
            (void)Segment::create(capacity);
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
        Segment whole = Segment::create(kLarge);
        CHECK(failure_of([&] { (void)Segment::attach(copy_of(whole.descriptor()), kLarge, {1, {}}); }) ==
              static_cast<int>(SetupFailure::timed_out));
        CHECK(failure_of([&] { (void)Segment::attach(copy_of(whole.descriptor()), kLarge, {kNever, at_once}); }) ==
              static_cast<int>(SetupFailure::interrupted));
    }
    CHECK(failure_of([&] { (void)Segment::create(kLarge, {1, {}}); }) == static_cast<int>(SetupFailure::timed_out));
    CHECK(failure_of([&] { (void)Segment::create(kLarge, {kNever, at_once}); }) ==
          static_cast<int>(SetupFailure::interrupted));
    CHECK(Held{} == before);
}

// ---- what a peer may pass ------------------------------------------------------------------------------------------------

TEST_CASE("what is not a memfd is refused") {
    int pipes[2];
    REQUIRE(::pipe2(pipes, O_CLOEXEC) == 0);
    Descriptor writing(pipes[1]);
    const Folder folder;
    CHECK(contains(refusal(Descriptor(pipes[0])), "not a memfd"));
    CHECK(contains(refusal(copy_of(writing.get())), "not a memfd"));
    CHECK(contains(refusal(Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))), "not a memfd"));
    CHECK(contains(refusal(Descriptor(::open("/dev/zero", O_RDWR | O_CLOEXEC))), "not a memfd"));
    CHECK(contains(refusal(Descriptor(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC))),
                   "not a memfd"));
    CHECK(contains(refusal(Descriptor(-1)), "not a memfd"));
}

TEST_CASE("a regular file of the right size and content is refused") {
    const Folder folder;
    Descriptor file(::open(folder.file("f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(file);
    REQUIRE(::ftruncate(file.get(), kHeaderBytes + kCapacity) == 0);
    // A file on tmpfs has seals too (F_SEAL_SEAL from the start), so the reason may differ; the outcome may not.
    CHECK(contains(refusal(std::move(file)), "refused"));
}

TEST_CASE("a forged memfd with everything right is accepted, so the refusals below have their one reason") {
    CHECK(refusal(forged(kHeaderBytes + kCapacity, kSeals)) == "attached");
}

TEST_CASE("a memfd with any of the three seals missing is refused") {
    for (const int missing : {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL, kSeals}) {
        CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals & ~missing)), "resized"));
    }
}

TEST_CASE("a memfd of any other size than announced is refused") {
    for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{24}, kHeaderBytes, kHeaderBytes + kCapacity - 1,
                                      kHeaderBytes + kCapacity + 1, kHeaderBytes + 2 * kCapacity}) {
        CHECK(contains(refusal(forged(bytes, kSeals)), "bytes, not"));
    }
}

TEST_CASE("a memfd whose memory is not all reserved is refused, and none of it is taken") {
    constexpr std::uint64_t kLarge = 1 << 28;
    const auto sparse = [&] {
        return forged(kHeaderBytes + kLarge, kSeals, kLarge, kSegmentMagic, kProtocolVersion, kHeaderBytes, false);
    };
    const auto taken = [](int descriptor) {
        struct stat status{};
        return ::fstat(descriptor, &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
    };
    const Descriptor empty = sparse();
    CHECK(contains(refusal(copy_of(empty.get()), kLarge), "has not reserved " + std::to_string(kLarge)));
    CHECK(taken(empty.get()) == kHeaderBytes);
    const Descriptor torn = sparse();
    REQUIRE(::fallocate(torn.get(), 0, 0, kHeaderBytes + kLarge - 4096) == 0);
    CHECK(contains(refusal(copy_of(torn.get()), kLarge), "has not reserved 4096"));
    CHECK(taken(torn.get()) == kLarge);
}

TEST_CASE("memory that is given back while it is being mapped is not taken anew") {
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
        (void)Segment::attach(copy_of(number), kLarge, {kNever, punch});
    } catch (const SetupError& error) {
        what = error.what();
    }
    CHECK(contains(what, "has not reserved"));
    struct stat status{};
    REQUIRE(::fstat(number, &status) == 0);
    CHECK(status.st_blocks * 512 <= static_cast<blkcnt_t>(kHeaderBytes));
}

TEST_CASE("a memfd that cannot be written to is refused") {
    const Descriptor whole = forged(kHeaderBytes + kCapacity, kSeals);
    const std::string path = "/proc/self/fd/" + std::to_string(whole.get());
    CHECK(contains(refusal(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC))), "cannot be written"));
    CHECK(contains(refusal(Descriptor(::open(path.c_str(), O_WRONLY | O_CLOEXEC))), "cannot be written"));
    CHECK(contains(refusal(Descriptor(::open(path.c_str(), O_PATH | O_CLOEXEC))), "refused"));
    CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals | F_SEAL_WRITE)), "cannot be written"));
    CHECK(contains(refusal(forged(kHeaderBytes + kCapacity, kSeals | F_SEAL_FUTURE_WRITE)), "cannot be written"));
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

// ---- ownership -----------------------------------------------------------------------------------------------------------

TEST_CASE("a segment lets go of its mapping and its descriptor, once, wherever it was moved") {
    const Held before;
    {
        Segment first = Segment::create(kCapacity);
        CHECK(count_segment_mappings() == before.mappings + 1);
        Segment second = std::move(first);
        CHECK(first.header() == nullptr);
        CHECK(first.descriptor() == -1);
        CHECK(first.capacity() == 0);
        CHECK(second.capacity() == kCapacity);
        Segment third = Segment::create(kCapacity);
        third = std::move(second);
        CHECK(count_segment_mappings() == before.mappings + 1);
        CHECK(count_descriptors() == before.descriptors + 1);
        Segment& same = third;
        third = std::move(same);
        CHECK(third.header() != nullptr);
        third.header()->read_position.store(1);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a descriptor is closed exactly once") {
    const std::size_t before = count_descriptors();
    {
        Descriptor first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        Descriptor second = std::move(first);
        CHECK_FALSE(first);
        CHECK(second);
        Descriptor third(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        third = std::move(second);
        CHECK(count_descriptors() == before + 1);
        Descriptor& same = third;
        third = std::move(same);
        CHECK(third);
        third.reset();
        third.reset();
        CHECK(count_descriptors() == before);
    }
    CHECK(count_descriptors() == before);
}

TEST_CASE("without a free descriptor the error says what to do") {
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 0;
    SetupFailure failure = SetupFailure::interrupted;
    int error_number = 0;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    try {
        (void)Segment::create(kCapacity);
    } catch (const SetupError& error) {
        failure = error.failure();
        error_number = error.error_number();
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(failure == SetupFailure::handshake);
    CHECK(error_number == EMFILE);
}

TEST_CASE("a NUMA node that cannot exist is an error, and asking for the first does no harm") {
    const Segment segment = Segment::create(kCapacity);
    CHECK(segment.bind_to_node(1u << 20) == EINVAL);
    (void)segment.bind_to_node(0);
    CHECK(segment.header()->magic == kSegmentMagic);
}
