// Memory that is shared: its size, its seals, who may write, and who lets go of it. What stands in it: ring_segment.tests.cpp.
#include "tachyon/shm/segment.hpp"

#include <sys/socket.h>

#include "catch.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kBytes = 2 * kPage;

Descriptor copy_of(int number) { return Descriptor(::fcntl(number, F_DUPFD_CLOEXEC, 0)); }

std::uint8_t* bytes_of(const Segment& segment) { return static_cast<std::uint8_t*>(segment.memory()); }

Segment attach(Descriptor descriptor, std::uint64_t bytes, const Patience& patience = {}) {
    Segment segment = Segment::attach(std::move(descriptor), bytes, Access::read_write);
    segment.populate(patience);
    return segment;
}

// What a peer might pass instead of a segment: reserved, or but for its first page not; and so much behind its end.
Descriptor forged(std::uint64_t bytes, int seals, bool reserved = true, std::uint64_t behind = 0) {
    Descriptor memory(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(memory);
    REQUIRE(::ftruncate(memory.get(), static_cast<off_t>(bytes)) == 0);
    if (bytes > 0) REQUIRE(reserve(memory.get(), reserved ? bytes : kPage));
    if (behind > 0) {
        const auto from = static_cast<off_t>(page_up(bytes)), size = static_cast<off_t>(behind);
        REQUIRE(::fallocate(memory.get(), FALLOC_FL_KEEP_SIZE, from, size) == 0);
    }
    REQUIRE(::fcntl(memory.get(), F_ADD_SEALS, seals) == 0);
    return memory;
}

// How attaching fails; nothing may be left of the attempt.
std::string refusal(Descriptor descriptor, std::uint64_t bytes = kBytes, Access access = Access::read_write) {
    const std::size_t mappings = count_segment_mappings();
    const std::size_t descriptors = count_descriptors() - (descriptor ? 1 : 0);
    std::string what = "attached";
    try {
        const Segment segment = Segment::attach(std::move(descriptor), bytes, access);
        segment.populate();
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
    for (const std::uint64_t bytes : {kPage + 64, kBytes, kPage + (std::uint64_t{1} << 20)}) {
        const Segment segment = Segment::create(bytes);
        CHECK(segment.bytes() == bytes);
        CHECK(segment.access() == Access::read_write);
        CHECK((::fcntl(segment.descriptor(), F_GET_SEALS) & kSeals) == kSeals);
        CHECK((::fcntl(segment.descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
        struct stat status{};
        REQUIRE(::fstat(segment.descriptor(), &status) == 0);
        CHECK(static_cast<std::uint64_t>(status.st_size) == bytes);
        CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= bytes);  // reserved, not promised
        CHECK(::ftruncate(segment.descriptor(), 0) != 0);
        CHECK(::ftruncate(segment.descriptor(), 1 << 22) != 0);
        CHECK(::fcntl(segment.descriptor(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
        std::uint64_t sum = 0;
        for (std::uint64_t i = 0; i < bytes; ++i) sum += bytes_of(segment)[i];
        CHECK(sum == 0);
    }
}

TEST_CASE("both ends see the same memory") {
    Segment ours = Segment::create(kBytes);
    const Segment theirs = attach(copy_of(ours.descriptor()), kBytes);
    CHECK(theirs.bytes() == kBytes);
    CHECK(theirs.memory() != ours.memory());
    ours.close_descriptor();
    CHECK(ours.descriptor() == -1);
    bytes_of(ours)[kBytes - 1] = 42;
    CHECK(bytes_of(theirs)[kBytes - 1] == 42);
    bytes_of(theirs)[0] = 7;
    CHECK(bytes_of(ours)[0] == 7);
}

// ---- to read only --------------------------------------------------------------------------------------------------------

TEST_CASE("memory that is shared to read can be read, and by no means be written") {
    const Held before;
    {
        const Segment ours = Segment::create(kBytes);
        Descriptor passed = ours.share_to_read();
        CHECK((::fcntl(passed.get(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, passed.get(), 0) == MAP_FAILED);
        CHECK(::pwrite(passed.get(), "x", 1, 0) == -1);
        const Segment theirs = Segment::attach(std::move(passed), kBytes, Access::read_only);
        theirs.populate();
        CHECK(theirs.access() == Access::read_only);
        bytes_of(ours)[kPage] = 9;
        CHECK(bytes_of(theirs)[kPage] == 9);
        CHECK(::mprotect(theirs.memory(), kBytes, PROT_READ | PROT_WRITE) == -1);
    }
    CHECK(Held{} == before);
}

TEST_CASE("memory that is to be read only is refused with any other access, and the other way round") {
    const Descriptor whole = forged(kBytes, kSeals);
    const std::string path = "/proc/self/fd/" + std::to_string(whole.get());
    const auto opened = [&](int mode) { return Descriptor(::open(path.c_str(), mode | O_CLOEXEC)); };
    CHECK(refusal(opened(O_RDONLY), kBytes, Access::read_only) == "attached");
    CHECK(contains(refusal(opened(O_RDWR), kBytes, Access::read_only), "not for reading only"));
    CHECK(contains(refusal(opened(O_WRONLY), kBytes, Access::read_only), "not for reading only"));
    CHECK(contains(refusal(opened(O_RDONLY), kBytes, Access::read_write), "cannot be written"));
    CHECK(contains(refusal(forged(kBytes, 0), kBytes, Access::read_only), "resized"));
    CHECK(contains(refusal(opened(O_RDONLY), 2 * kBytes, Access::read_only), "bytes, not"));
    const Descriptor sparse = forged(4 * kBytes, kSeals, false);
    const std::string other = "/proc/self/fd/" + std::to_string(sparse.get());
    CHECK(contains(refusal(Descriptor(::open(other.c_str(), O_RDONLY | O_CLOEXEC)), 4 * kBytes, Access::read_only),
                   "has not reserved"));
}

TEST_CASE("memory that is taken back reads as zeros from there on, and is nobody's") {
    const Segment ours = Segment::create(4 * kPage);
    const Segment theirs = attach(copy_of(ours.descriptor()), 4 * kPage);
    for (std::uint64_t i = 0; i < 4; ++i) bytes_of(ours)[i * kPage] = 1;
    ours.discard_from(kPage);
    for (std::uint64_t i = 0; i < 4; ++i) CHECK(bytes_of(theirs)[i * kPage] == (i == 0 ? 1 : 0));
    ours.discard_from(4 * kPage);  // nothing
    CHECK(bytes_of(theirs)[0] == 1);
}

// ---- time ----------------------------------------------------------------------------------------------------------------

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
        CHECK(failure_of([&] { (void)attach(copy_of(whole.descriptor()), kLarge, {1, {}}); }) ==
              static_cast<int>(SetupFailure::timed_out));
        CHECK(failure_of([&] { (void)attach(copy_of(whole.descriptor()), kLarge, {kNever, at_once}); }) ==
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
    REQUIRE(::ftruncate(file.get(), kBytes) == 0);
    // A file on tmpfs has seals too (F_SEAL_SEAL from the start), so the reason may differ; the outcome may not.
    CHECK(contains(refusal(std::move(file)), "refused"));
}

TEST_CASE("a forged memfd with everything right is accepted, so the refusals below have their one reason") {
    CHECK(refusal(forged(kBytes, kSeals)) == "attached");
}

TEST_CASE("a memfd with any of the three seals missing is refused") {
    for (const int missing : {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL, kSeals}) {
        CHECK(contains(refusal(forged(kBytes, kSeals & ~missing)), "resized"));
    }
}

TEST_CASE("a memfd of any other size than announced is refused") {
    for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{24}, kPage, kBytes - 1, kBytes + 1, 2 * kBytes}) {
        CHECK(contains(refusal(forged(bytes, kSeals)), "bytes, not"));
    }
}

TEST_CASE("a memfd whose memory is not all reserved is refused, and none of it is taken") {
    constexpr std::uint64_t kLarge = 1 << 28;
    const auto sparse = [&] { return forged(kPage + kLarge, kSeals, false); };
    const auto taken = [](int descriptor) {
        struct stat status{};
        return ::fstat(descriptor, &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
    };
    const Descriptor empty = sparse();
    CHECK(contains(refusal(copy_of(empty.get()), kPage + kLarge), "has not reserved " + std::to_string(kLarge)));
    CHECK(taken(empty.get()) == kPage);
    const Descriptor torn = sparse();
    REQUIRE(::fallocate(torn.get(), 0, 0, kPage + kLarge - 4096) == 0);
    CHECK(contains(refusal(copy_of(torn.get()), kPage + kLarge), "has not reserved 4096"));
    CHECK(taken(torn.get()) == kLarge);
}

TEST_CASE("what is reserved behind the end of a memfd, or not touched, makes up for no hole") {
    for (const Access access : {Access::read_write, Access::read_only}) {
        const auto passed = [access](const Descriptor& memory) {
            const std::string path = "/proc/self/fd/" + std::to_string(memory.get());
            return Descriptor(::open(path.c_str(), (access == Access::read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
        };
        const std::string missing = "of its 8192 bytes the listener has not reserved those from 4096 on";
        CHECK(contains(refusal(passed(forged(kBytes, kSeals, false, 64 * kPage)), kBytes, access), missing));
        CHECK(refusal(passed(forged(kBytes, kSeals, true, 64 * kPage)), kBytes, access) == "attached");
        const Descriptor untouched = forged(kBytes, kSeals, false);
        REQUIRE(::fallocate(untouched.get(), 0, 0, kBytes) == 0);
        CHECK(contains(refusal(passed(untouched), kBytes, access), missing));
    }
}

TEST_CASE("memory that is given back while it is being mapped is not taken anew") {
    constexpr std::uint64_t kLarge = 1 << 28;
    const Descriptor memory = forged(kPage + kLarge, kSeals);
    int number = memory.get();
    // Asked between two pieces.
    const Interrupt punch{[](void* at) {
                              ::fallocate(*static_cast<int*>(at), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kPage,
                                          kLarge);
                              return false;
                          },
                          &number};
    std::string what;
    try {
        (void)attach(copy_of(number), kPage + kLarge, {kNever, punch});
    } catch (const SetupError& error) {
        what = error.what();
    }
    CHECK(contains(what, "has not reserved"));
    struct stat status{};
    REQUIRE(::fstat(number, &status) == 0);
    CHECK(status.st_blocks * 512 <= static_cast<blkcnt_t>(kPage));
}

TEST_CASE("a memfd that cannot be written to is refused") {
    const Descriptor whole = forged(kBytes, kSeals);
    const std::string path = "/proc/self/fd/" + std::to_string(whole.get());
    CHECK(contains(refusal(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC))), "cannot be written"));
    CHECK(contains(refusal(Descriptor(::open(path.c_str(), O_WRONLY | O_CLOEXEC))), "cannot be written"));
    CHECK(contains(refusal(Descriptor(::open(path.c_str(), O_PATH | O_CLOEXEC))), "refused"));
    CHECK(contains(refusal(forged(kBytes, kSeals | F_SEAL_WRITE)), "cannot be written"));
    CHECK(contains(refusal(forged(kBytes, kSeals | F_SEAL_FUTURE_WRITE)), "cannot be written"));
}

// ---- ownership -----------------------------------------------------------------------------------------------------------

TEST_CASE("a segment lets go of its mapping and its descriptor, once, wherever it was moved") {
    const Held before;
    {
        Segment first = Segment::create(kBytes);
        CHECK(count_segment_mappings() == before.mappings + 1);
        Segment second = std::move(first);
        CHECK(first.memory() == nullptr);
        CHECK(first.descriptor() == -1);
        CHECK(first.bytes() == 0);
        CHECK(second.bytes() == kBytes);
        Segment third = Segment::create(kBytes);
        third = std::move(second);
        CHECK(count_segment_mappings() == before.mappings + 1);
        CHECK(count_descriptors() == before.descriptors + 1);
        Segment& same = third;
        third = std::move(same);
        CHECK(third.memory() != nullptr);
        bytes_of(third)[0] = 1;
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
        (void)Segment::create(kBytes);
    } catch (const SetupError& error) {
        failure = error.failure();
        error_number = error.error_number();
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(failure == SetupFailure::handshake);
    CHECK(error_number == EMFILE);
}

TEST_CASE("a NUMA node that cannot exist is an error, and asking for the first does no harm") {
    const Segment segment = Segment::create(kBytes);
    CHECK(segment.bind_to_node(1u << 20) == EINVAL);
    (void)segment.bind_to_node(0);
    CHECK(bytes_of(segment)[0] == 0);
}
