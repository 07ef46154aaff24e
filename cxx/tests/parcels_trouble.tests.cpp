// Messages that do not fit the ring, and what goes wrong: sockets that take nothing, no free descriptor, forks and kills.
#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kMaxLarge = 1 << 20;

BusPair large_pair() { return make_pair(4096, Barrier::locked, kMaxLarge); }

}  // namespace

TEST_CASE("while the socket takes nothing there is no room, and nothing is lost") {
    HalfBus half(4096, Side::listener, kMaxLarge);
    REQUIRE(send_one(*half.bus, 0) == Status::ok);
    while (::send(half.bus->connection()->socket(), "B", 1, MSG_DONTWAIT) == 1) {}
    const Held before;
    CHECK(send_one(*half.bus, 1, 5000) == Status::full);
    const Status waited = half.bus->wait_writable(5000, kNever);  // comes back: nobody would tell
    CHECK((waited == Status::full || waited == Status::ok));
    std::uint8_t* payload = nullptr;
    CHECK(eventually([&] { return half.bus->try_claim(5000, payload) == Status::ok; }));
    write_message(payload, 5000, 5000, 2);
    CHECK(half.bus->commit(5000, 2, 2) == Status::full);
    CHECK(half.bus->commit(4999, 2, 2) == Status::too_large);  // it is sealed by now
    CHECK(half.bus->commit(5000, 2, 2) == Status::full);
    CHECK(half.bus->abort() == Status::ok);
    CHECK(Held() == before);
    CHECK(send_one(*half.bus, 1) == Status::ok);  // what fits the ring goes on
    char bytes[4096];
    while (::recv(half.socket.get(), bytes, sizeof bytes, MSG_DONTWAIT) > 0) {}
    CHECK(eventually([&] { return send_one(*half.bus, 2, 5000) == Status::ok; }));
}

TEST_CASE("a peer that takes nothing more from its socket has gone") {
    HalfBus half(4096, Side::listener, kMaxLarge);
    REQUIRE(send_one(*half.bus, 0) == Status::ok);
    SECTION("by a shutdown of that direction") { ::shutdown(half.socket.get(), SHUT_RD); }
    SECTION("altogether") { half.die(); }
    CHECK(send_one(*half.bus, 1, 5000) == Status::peer_dead);
    CHECK(send_one(*half.bus, 1, 5000) == Status::peer_dead);
}

namespace {

struct FewDescriptors {
    rlimit before{};
    explicit FewDescriptors(std::size_t free) {
        ::getrlimit(RLIMIT_NOFILE, &before);
        const Descriptor next(::open("/dev/null", O_RDONLY));  // numbers below it are taken
        const rlimit few{static_cast<rlim_t>(next.get()) + free, before.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &few);
    }
    ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before); }
};

}  // namespace

TEST_CASE("without a free descriptor nothing is sent, and nothing that was sent is lost") {
    BusPair pair = large_pair();
    std::uint8_t* payload = nullptr;
    Frame frame{};
    {
        const FewDescriptors none(0);
        CHECK(send_one(*pair.first, 0, 5000) == Status::no_memory);
        CHECK(pair.first->trouble() == EMFILE);
        CHECK(pair.first->try_claim(5000, payload) == Status::no_memory);
    }
    CHECK(send_one(*pair.first, 0, 5000) == Status::ok);
    CHECK(send_one(*pair.first, 1) == Status::ok);
    for (const bool heard : {false, true}) {
        const FewDescriptors none(0);
        if (heard) (void)pair.second->connection()->hear();
        CHECK(pair.second->try_peek(frame) == Status::no_memory);
        CHECK(pair.second->trouble() == EMFILE);
    }
    CHECK(take_one(*pair.second, 0) == Status::ok);
    CHECK(take_one(*pair.second, 1) == Status::ok);
}

// ---- processes -----------------------------------------------------------------------------------------------------------

#if !TACHYON_TEST_TSAN

TEST_CASE("a message whose memory a forked child has mapped is sealed all the same") {
    BusPair pair = large_pair();
    std::uint8_t* payload = nullptr;
    REQUIRE(pair.first->try_claim(5000, payload) == Status::ok);
    write_message(payload, 5000, 5000, 3);
    Shared<std::atomic<int>> step;
    Child child([&] {
        payload[0] = payload[0];  // no crash
        *step = 1;
        while (*step == 1) sleep_us(200);
        return 0;
    });
    REQUIRE(eventually([&] { return *step == 1; }));
    CHECK(pair.first->commit(5000, 3, 3) == Status::ok);
    CHECK(take_one(*pair.second, 3) == Status::ok);
    *step = 2;
    CHECK(child.wait() == 0);
}

TEST_CASE("who is killed at any step of sending has sent the whole message or none of it") {
    for (int last = 0; last <= 5; ++last) {
        const Held before;
        {
            HalfBus half(4096, Side::listener, kMaxLarge);
            set_role(half, kConnector);
            Child child([&] {
                Producer producer(half.memory.ring(Barrier::locked));
                if (!producer.try_send("first", 5, 1)) return 1;
                for (int step = 0;; ++step) {
                    static Parcel parcel;
                    if (step == last) ::kill(::getpid(), SIGKILL);
                    if (step == 0 && producer.try_claim(8) == nullptr) return 2;
                    if (step == 1 && parcel.make(5000) != 0) return 3;
                    if (step == 2) write_message(parcel.memory(), 5000, 5000, 1);
                    if (step == 3 && parcel.seal(5000) != 0) return 4;
                    if (step == 4) {
                        const char byte = kPassed;
                        iovec part{const_cast<char*>(&byte), 1};
                        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
                        msghdr message{};
                        message.msg_iov = &part;
                        message.msg_iovlen = 1;
                        message.msg_control = control;
                        message.msg_controllen = sizeof control;
                        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
                        rights->cmsg_level = SOL_SOCKET;
                        rights->cmsg_type = SCM_RIGHTS;
                        rights->cmsg_len = CMSG_LEN(sizeof(int));
                        const int number = parcel.descriptor();
                        std::memcpy(CMSG_DATA(rights), &number, sizeof number);
                        if (::sendmsg(half.socket.get(), &message, 0) != 1) return 5;
                        producer.announce(5000, 1, 1);
                    }
                }
            });
            CHECK(child.wait() == -SIGKILL);
            half.die();
            CHECK(half.bus->recv().text() == "first");
            if (last == 5) CHECK(take_one(*half.bus, 1) == Status::ok);
            Frame frame{};
            CHECK(settled_peek(*half.bus, frame) == Status::peer_dead);
        }
        CHECK(Held() == before);
    }
}

TEST_CASE("who is killed at any step of receiving is seen to be dead, and leaves nothing") {
    const Folder folder;
    for (int last = 0; last <= 4; ++last) {
        const Held before;
        {
            Child child([&] {
                const auto bus = Bus::connect(folder.file(), connect_options());
                Frame frame{};
                for (int step = 0;; ++step) {
                    if (step == last) ::kill(::getpid(), SIGKILL);
                    if (step == 0 && receive(*bus, frame, in_ms(20'000)) != Status::ok) return 1;  // "come"
                    if (step == 1 && !eventually([&] { return bus->readable_now(); })) return 2;
                    if (step == 1) (void)bus->connection()->hear();
                    if (step == 2 && bus->try_peek(frame) != Status::ok) return 3;
                    if (step == 3 && bus->release(frame) != Status::ok) return 4;
                }
            });
            const auto bus = Bus::listen(folder.file(), listen_options());
            Status status = send_one(*bus, 0);
            // Whoever dies as soon as the message is there may be dead before the sender has looked back.
            CHECK((status == Status::ok || (last <= 1 && status == Status::peer_dead)));
            CHECK(eventually([&] {
                status = send_one(*bus, 1, 5000);
                return status != Status::ok && status != Status::full;
            }));
            CHECK(status == Status::peer_dead);
            CHECK(child.wait() == -SIGKILL);
        }
        CHECK(Held() == before);
    }
}

#endif
