// A peer that lies about messages that do not fit the ring.
#include <functional>
#include <utility>
#include <vector>

#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kMaxLarge = 1 << 20;
constexpr std::uint64_t kBytes = 5000;
constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_WRITE;

struct Liar : HalfBus {
    explicit Liar(std::uint64_t max_large = kMaxLarge)
        : HalfBus(4096, Side::listener, max_large), producer(memory.ring(Barrier::locked)) {
        set_role(*this, kConnector);
    }

    void announce(std::uint64_t bytes) {
        REQUIRE(producer.try_claim(8) != nullptr);
        producer.announce(bytes, 1, 1);
    }
    // With so many descriptors on one byte. False: the kernel takes no more.
    bool pass(const std::vector<int>& numbers) const {
        char byte = kPassed;
        iovec part{&byte, 1};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 253)] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * numbers.size());
        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * numbers.size());
        std::memcpy(CMSG_DATA(rights), numbers.data(), sizeof(int) * numbers.size());
        return ::sendmsg(socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
    }
    Producer producer;
};

// For a message of so many bytes.
Descriptor memfd(std::uint64_t bytes, int seals = kAllSeals, unsigned flags = 0, bool reserved = true) {
    bytes += Parcel::kLead;
    Descriptor made(::memfd_create("tachyon-parcel", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
    if (!made) return made;
    REQUIRE(::ftruncate(made.get(), static_cast<off_t>(bytes)) == 0);
    if (reserved) REQUIRE(reserve(made.get(), bytes));
    if (seals != 0) REQUIRE(::fcntl(made.get(), F_ADD_SEALS, seals) == 0);
    return made;
}

Descriptor opened(const std::string& path, int flags) { return Descriptor(::open(path.c_str(), flags | O_CLOEXEC)); }
std::string again(const Descriptor& descriptor) { return "/proc/self/fd/" + std::to_string(descriptor.get()); }

}  // namespace

TEST_CASE("what the liar sends is taken where it is right") {
    Liar liar;
    REQUIRE(liar.pass({memfd(kBytes).get()}));
    liar.announce(kBytes);
    CHECK(liar.bus->recv().data().size() == kBytes);
    const Descriptor right = memfd(kBytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_FUTURE_WRITE);
    REQUIRE(liar.pass({right.get()}));
    liar.announce(kBytes);
    CHECK(liar.bus->recv().data().size() == kBytes);
    REQUIRE(liar.pass({opened(again(right), O_RDONLY).get()}));
    liar.announce(kBytes);
    CHECK(liar.bus->recv().data().size() == kBytes);
}

TEST_CASE("what comes in another memory than it should is corrupt, and nothing of it is left") {
    struct Lie {
        const char* what;
        std::function<Descriptor()> make;
    };
    const Lie lies[] = {
        {"shorter", [] { return memfd(4999); }},
        {"much shorter", [] { return memfd(1); }},
        {"longer", [] { return memfd(5001); }},
        {"not sealed", [] { return memfd(kBytes, 0); }},
        {"can shrink", [] { return memfd(kBytes, kAllSeals & ~F_SEAL_SHRINK); }},
        {"can grow", [] { return memfd(kBytes, kAllSeals & ~F_SEAL_GROW); }},
        {"can be sealed", [] { return memfd(kBytes, kAllSeals & ~F_SEAL_SEAL); }},
        {"can be written", [] { return memfd(kBytes, kAllSeals & ~F_SEAL_WRITE); }},
        {"not reserved", [] { return memfd(kBytes, kAllSeals, 0, false); }},
        {"reserved behind its end",
         [] {
             Descriptor made = memfd(kBytes, 0, 0, false);
             REQUIRE(::fallocate(made.get(), FALLOC_FL_KEEP_SIZE, 8192, 8192) == 0);
             REQUIRE(::fcntl(made.get(), F_ADD_SEALS, kAllSeals) == 0);
             return made;
         }},
        {"a file",
         [] {
             const Folder folder;
             Descriptor file = opened(folder.file(), O_RDWR | O_CREAT);
             REQUIRE(::ftruncate(file.get(), kBytes) == 0);
             return file;
         }},
        {"a device", [] { return opened("/dev/zero", O_RDWR); }},
        {"a folder", [] { return opened("/", O_RDONLY | O_DIRECTORY); }},
        {"a pipe",
         [] {
             int ends[2];
             REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
             ::close(ends[1]);
             return Descriptor(ends[0]);
         }},
        {"a socket", [] { return Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
        {"only a path", [] { return opened(again(memfd(kBytes)), O_PATH); }},
        {"only to write",
         [] {
             const Descriptor made = memfd(kBytes, kAllSeals & ~F_SEAL_WRITE & ~F_SEAL_SEAL);
             Descriptor writer = opened(again(made), O_WRONLY);
             REQUIRE(::fcntl(made.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0);
             return writer;
         }},
    };
    for (const Lie& lie : lies) {
        INFO(lie.what);
        const Held before;
        {
            Liar liar;
            const Descriptor made = lie.make();
            REQUIRE(made);
            REQUIRE(liar.pass({made.get()}));
            liar.announce(kBytes);
            Frame frame{};
            for (int i = 0; i < 2; ++i) CHECK(liar.bus->try_peek(frame) == Status::corrupt);
            CHECK(liar.bus->state() == Status::corrupt);
        }
        CHECK(Held() == before);
    }
}

TEST_CASE("huge pages are refused, whose mapping could not be undone") {
    const Descriptor huge = memfd((2 << 20) - Parcel::kLead, 0, MFD_HUGETLB, false);
    if (!huge || ::fallocate(huge.get(), 0, 0, 2 << 20) != 0) return;  // this machine has none
    REQUIRE(::fcntl(huge.get(), F_ADD_SEALS, kAllSeals) == 0);
    Liar liar(4 << 20);
    REQUIRE(liar.pass({huge.get()}));
    liar.announce((2 << 20) - Parcel::kLead);
    Frame frame{};
    CHECK(liar.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("an announcement of what cannot be is corrupt, even if there is such memory") {
    const std::uint64_t bytes = GENERATE(std::uint64_t{0}, kMaxLarge + 1, std::uint64_t{1} << 32, ~std::uint64_t{0});
    Liar liar;
    REQUIRE(liar.pass({memfd(bytes <= kMaxLarge + 1 ? bytes : kBytes).get()}));
    liar.announce(bytes);
    Frame frame{};
    CHECK(liar.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("an announcement without a descriptor is corrupt, whatever else is on the socket") {
    const bool knocks = GENERATE(false, true);
    Liar liar;
    if (knocks) {
        for (int i = 0; i < 50; ++i) REQUIRE(::send(liar.socket.get(), "BBBBBBBBBBM", 11, MSG_DONTWAIT) == 11);
    }
    liar.announce(kBytes);
    Frame frame{};
    CHECK(liar.bus->wait_readable(kNever) == Status::ok);
    CHECK(liar.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("an announcement is corrupt where nobody has asked for any") {
    HalfBus half;
    set_role(half, kConnector);
    Producer producer(half.memory.ring(Barrier::locked));
    REQUIRE(producer.try_claim(8) != nullptr);
    producer.announce(kBytes, 1, 1);
    Frame frame{};
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("descriptors without an announcement are bounded, and go with the bus") {
    const std::size_t count = GENERATE(std::size_t{1}, kMostParcels, kMostParcels + 1, std::size_t{200});
    const bool heard = GENERATE(false, true);
    const Held before;
    {
        Liar liar;
        REQUIRE(liar.producer.try_send("small", 5, 1));
        const Descriptor made = memfd(kBytes);
        std::size_t passed = 0;
        while (passed < count && liar.pass({made.get()})) ++passed;
        const Held there;
        if (heard) (void)liar.bus->connection()->hear();
        CHECK(Held().descriptors <= there.descriptors + kMostParcels);
        if (heard && passed > kMostParcels) CHECK(Held() == there);
        CHECK(liar.bus->recv().text() == "small");  // has nothing to do with them
        liar.announce(kBytes);
        Frame frame{};
        const Status status = liar.bus->try_peek(frame);
        if (heard && passed > kMostParcels) CHECK(status == Status::corrupt);
        if (passed <= kMostParcels) CHECK(status == Status::ok);
        liar.bus->release(frame);
    }
    CHECK(Held() == before);
}

TEST_CASE("more than one descriptor with a byte is corrupt, and none of them stays") {
    const std::size_t count = GENERATE(std::size_t{2}, std::size_t{3}, std::size_t{253});
    const bool heard = GENERATE(false, true);
    Liar liar;
    const Descriptor made = memfd(kBytes);
    const Held before;
    REQUIRE(liar.pass(std::vector<int>(count, made.get())));
    liar.announce(kBytes);
    if (heard) (void)liar.bus->connection()->hear();
    Frame frame{};
    CHECK(liar.bus->try_peek(frame) == Status::corrupt);
    CHECK(Held() == before);
    (void)liar.bus->connection()->hear();
    char byte = 0;
    CHECK(::recv(liar.bus->connection()->socket(), &byte, 1, MSG_DONTWAIT) == -1);
}

TEST_CASE("more are announced than may be under way at a time, and the first that is too many is corrupt") {
    Liar liar;
    const Descriptor made = memfd(kBytes);
    std::vector<Frame> held;
    Frame frame{};
    for (std::size_t i = 0; i < kMostParcels; ++i) {
        REQUIRE(liar.pass({made.get()}));
        liar.announce(kBytes);
        REQUIRE(liar.bus->try_peek(frame) == Status::ok);
        held.push_back(frame);
    }
    REQUIRE(liar.pass({made.get()}));
    liar.announce(kBytes);
    CHECK(liar.bus->try_peek(frame) == Status::corrupt);
    for (const Frame& each : held) {
        CHECK(each.payload[kBytes - 1] == 0);
        CHECK(liar.bus->release(each) == Status::corrupt);
    }
}

TEST_CASE("what the peer does to its announcement afterwards changes nothing") {
    Liar liar;
    REQUIRE(liar.pass({memfd(kBytes).get()}));
    liar.announce(kBytes);
    Frame frame{};
    REQUIRE(liar.bus->try_peek(frame) == Status::ok);
    std::memset(liar.data, 0xff, 64);
    CHECK(frame.size == kBytes);
    CHECK(liar.bus->release_checked(frame) == Status::ok);
    CHECK(liar.bus->try_peek(frame) == Status::empty);
}
