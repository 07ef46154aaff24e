// Messages that do not fit the ring: their order, their bounds, and what is left of them.
#include <poll.h>

#include <thread>
#include <vector>

#include "half_bus.hpp"
#include "tachyon/batch.hpp"
#include "tachyon/rpc.hpp"
#include "tachyon/wait_set.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr std::uint64_t kMaxLarge = 1 << 20;

BusPair large_pair(std::uint64_t capacity = 4096) { return make_pair(capacity, Barrier::locked, kMaxLarge); }

// Sizes beyond a ring of 4096, around the ends of pages, up to the largest.
const std::vector<std::uint64_t> kSizes{4081, 4096, 4097, 100'000, kMaxLarge - 1, kMaxLarge};

std::size_t parcels_mapped() {
    std::size_t count = 0;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) count += line.find("tachyon-parcel") != std::string::npos;
    return count;
}

}  // namespace

TEST_CASE("what does not fit the ring arrives whole, in its place among the others, and leaves nothing behind") {
    const Held before;
    {
        BusPair pair = large_pair();
        CHECK(pair.first->max_message_size() == 4080);
        CHECK(pair.first->max_large_size() == kMaxLarge);
        const Held open;
        std::uint64_t sent = 0, taken = 0;
        for (int round = 0; round < 20; ++round) {
            for (const std::uint64_t size : kSizes) {
                CHECK(send_one(*pair.first, sent++) == Status::ok);
                CHECK(send_one(*pair.first, sent++, size) == Status::ok);
                CHECK(send_one(*pair.first, sent++) == Status::ok);
                while (taken < sent) REQUIRE(take_one(*pair.second, taken++) == Status::ok);
            }
        }
        Frame frame{};
        CHECK(pair.second->try_peek(frame) == Status::empty);
        CHECK(Held() == open);
    }
    CHECK(Held() == before);
}

TEST_CASE("one byte more than both sides allow is too large, and decides nothing") {
    BusPair pair = large_pair();
    std::vector<std::uint8_t> bytes(kMaxLarge + 1);
    std::uint8_t* payload = nullptr;
    for (const std::uint64_t size : {kMaxLarge + 1, std::uint64_t{1} << 32, ~std::uint64_t{0}}) {
        CHECK(pair.first->try_send(bytes.data(), size, 1) == Status::too_large);
        CHECK(pair.first->try_claim(size, payload) == Status::too_large);
        CHECK(pair.first->wait_writable(size, 0) == Status::too_large);
    }
    CHECK(pair.first->stats().producer == Side::undecided);
    CHECK(send_one(*pair.first, 1, 5000) == Status::ok);
    CHECK(pair.first->stats().producer == Side::listener);
    CHECK(send_one(*pair.second, 1, 5000) == Status::wrong_side);
}

TEST_CASE("a claim beyond the ring is written in place, and may be cut down") {
    BusPair pair = large_pair();
    const Held open;
    for (const std::uint32_t size : {0u, 1u, 48u, 49u, 4080u, 4081u, 50'000u, 100'000u}) {
        std::uint8_t* payload = nullptr;
        REQUIRE(pair.first->try_claim(100'000, payload) == Status::ok);
        CHECK(pair.first->try_claim(1, payload) == Status::claim_open);
        CHECK(pair.first->try_send("x", 1, 1) == Status::claim_open);
        write_message(payload, size, 100'000, size);
        CHECK(pair.first->commit(100'001, 1) == Status::too_large);  // and is still open
        CHECK(pair.first->commit(size, size, size) == Status::ok);
        CHECK(pair.first->commit(size, size, size) == Status::no_claim);
        CHECK(take_one(*pair.second, size) == Status::ok);
        CHECK(Held() == open);
    }
}

TEST_CASE("a claim beyond the ring that is given up leaves nothing behind, nor does one that is open at the end") {
    const Held before;
    {
        BusPair pair = large_pair();
        const Held open;
        std::uint8_t* payload = nullptr;
        for (int i = 0; i < 100; ++i) {
            REQUIRE(pair.first->try_claim(kMaxLarge, payload) == Status::ok);
            payload[kMaxLarge - 1] = 1;
            CHECK(pair.first->abort() == Status::ok);
            CHECK(Held() == open);
        }
        CHECK(send_one(*pair.first, 1) == Status::ok);
        CHECK(take_one(*pair.second, 1) == Status::ok);
        REQUIRE(pair.first->try_claim(kMaxLarge, payload) == Status::ok);
        pair.first->close();
        payload[kMaxLarge - 1] = 1;  // its memory stays as long as the bus
        CHECK(pair.first->commit(1, 1) == Status::closed);
    }
    CHECK(Held() == before);
}

TEST_CASE("so many are under way at most, and so many bytes, and each that is let go of makes room") {
    const std::uint64_t size = GENERATE(std::uint64_t{5000}, kMaxLarge / 4);
    const std::uint64_t most = std::min<std::uint64_t>(kMostParcels, kMaxLarge / size);
    BusPair pair = large_pair();
    std::uint64_t sent = 0, taken = 0;
    std::uint8_t* payload = nullptr;
    while (send_one(*pair.first, sent, size) == Status::ok) ++sent;
    CHECK(sent == most);
    const Held full;
    for (int i = 0; i < 50; ++i) {
        CHECK(send_one(*pair.first, sent, size) == Status::full);
        CHECK(pair.first->try_claim(size, payload) == Status::full);
        CHECK_FALSE(pair.first->writable_now(size));
        CHECK(pair.first->wait_writable(size, 0) == Status::full);
        CHECK(Held() == full);
        pair.header->producer_parked.store(kParkedOnFutex);
        CHECK(take_one(*pair.second, taken++) == Status::ok);
        CHECK(pair.header->producer_parked.load() == kAwake);  // it was woken
        CHECK(pair.first->writable_now(size));
        CHECK(send_one(*pair.first, sent++, size) == Status::ok);
    }
    CHECK(send_one(*pair.first, sent++) == Status::ok);  // what fits the ring goes on
    while (taken < sent) REQUIRE(take_one(*pair.second, taken++) == Status::ok);
}

TEST_CASE("a sender that waits for one to be taken goes on when it is") {
    BusPair pair = large_pair();
    std::uint64_t taken = 0;
    for (std::uint64_t i = 0; i < kMostParcels; ++i) REQUIRE(send_one(*pair.first, i, 5000) == Status::ok);
    std::vector<std::uint8_t> bytes(5008);
    write_message(bytes.data(), 5000, 5000, kMostParcels);
    Status status = Status::empty;
    std::thread sender([&] {
        status = send(*pair.first, bytes.data(), 5000, static_cast<std::uint32_t>(kMostParcels), kMostParcels,
                      in_ms(30'000));
    });
    const bool parked = eventually([&] { return pair.header->producer_parked.load() != kAwake; });
    const bool took = take_one(*pair.second, taken++) == Status::ok;
    sender.join();
    CHECK(parked);
    CHECK(took);
    CHECK(status == Status::ok);
    while (taken <= kMostParcels) REQUIRE(take_one(*pair.second, taken++) == Status::ok);
}

TEST_CASE("they are held, put back and released in any order, among others") {
    BusPair pair = large_pair(1 << 16);
    Random random(7);
    std::uint64_t sent = 0, taken = 0;
    for (int round = 0; round < 200; ++round) {
        while (sent < taken + 12) {
            const std::uint64_t size = random.one_in(2) ? 70'000 + random.below(100) : random.below(100);
            if (send_one(*pair.first, sent, size) != Status::ok) break;
            ++sent;
        }
        std::vector<Frame> held;
        while (taken < sent && held.size() < 1 + random.below(12)) {
            Frame frame{};
            REQUIRE(pair.second->try_peek(frame) == Status::ok);
            REQUIRE(check_message(frame, taken) == nullptr);
            if (random.one_in(3)) {
                pair.second->put_back(frame);
                continue;
            }
            held.push_back(frame);
            ++taken;
        }
        while (!held.empty()) {
            const auto one = held.begin() + static_cast<std::ptrdiff_t>(random.below(held.size()));
            REQUIRE(pair.second->release(*one) == Status::ok);
            held.erase(one);
        }
    }
    while (taken < sent) REQUIRE(take_one(*pair.second, taken++) == Status::ok);
    CHECK(parcels_mapped() == 0);
}

TEST_CASE("free code releases them oldest first, and just as they were") {
    BusPair pair = large_pair();
    Frame first{}, second{};
    REQUIRE(send_one(*pair.first, 0, 5000) == Status::ok);
    REQUIRE(send_one(*pair.first, 1, 6000) == Status::ok);
    REQUIRE(pair.second->try_peek(first) == Status::ok);
    REQUIRE(pair.second->try_peek(second) == Status::ok);
    Frame changed = first;
    changed.size = 10;
    CHECK(pair.second->release_checked(changed) == Status::no_claim);
    changed = first;
    changed.payload = pair.data;
    CHECK(pair.second->release_checked(changed) == Status::no_claim);
    CHECK(pair.second->release_checked(second) == Status::no_claim);
    CHECK(pair.second->release_checked(first) == Status::ok);
    CHECK(pair.second->release_checked(first) == Status::no_claim);
    CHECK(pair.second->release_checked(second) == Status::ok);
}

TEST_CASE("a payload lives until it is released, whoever has closed") {
    const Held before;
    {
        BusPair pair = large_pair();
        REQUIRE(send_one(*pair.first, 0, 5000) == Status::ok);
        REQUIRE(send_one(*pair.first, 1, 5000) == Status::ok);
        Frame first{}, second{};
        REQUIRE(pair.second->try_peek(first) == Status::ok);
        REQUIRE(pair.second->try_peek(second) == Status::ok);
        pair.first.reset();
        pair.second->close();
        CHECK(check_message(first, 0) == nullptr);
        CHECK(pair.second->release(first) == Status::closed);
        CHECK(parcels_mapped() == 1);
        CHECK(check_message(second, 1) == nullptr);
    }
    CHECK(Held() == before);
}

TEST_CASE("what was sent before a close arrives after it") {
    BusPair pair = large_pair();
    for (std::uint64_t i = 0; i < 10; ++i) REQUIRE(send_one(*pair.first, i, 5000) == Status::ok);
    pair.second->connection()->knock();
    pair.first.reset();  // with a byte unread, which resets the connection
    for (std::uint64_t i = 0; i < 10; ++i) REQUIRE(take_one(*pair.second, i) == Status::ok);
    Frame frame{};
    CHECK(settled_peek(*pair.second, frame) == Status::peer_closed);
}

TEST_CASE("who hears knocks keeps the descriptors that come between, in order, and the socket is no longer readable") {
    BusPair pair = large_pair();
    for (std::uint64_t i = 0; i < kMostParcels; ++i) {
        for (std::uint64_t k = 0; k < i * 4; ++k) pair.first->connection()->knock();
        REQUIRE(send_one(*pair.first, i, 5000 + i) == Status::ok);
        pair.first->connection()->knock();
        if (i % 3 == 0) (void)pair.second->connection()->hear();
    }
    (void)pair.second->connection()->hear();
    char byte = 0;
    CHECK(::recv(pair.second->connection()->socket(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) == -1);
    CHECK(errno == EAGAIN);
    for (std::uint64_t i = 0; i < kMostParcels; ++i) REQUIRE(take_one(*pair.second, i) == Status::ok);
}

TEST_CASE("a wait for many rings finds them, and sleeps afterwards") {
    BusPair pair = large_pair();
    REQUIRE(send_one(*pair.first, 0) == Status::ok);
    REQUIRE(take_one(*pair.second, 0) == Status::ok);
    WaitSet set;
    set.add(1, *pair.second);
    std::uint64_t token = 0;
    for (std::uint64_t i = 1; i < 20; ++i) {
        std::thread sender([&, i] {
            (void)eventually([&] { return pair.header->consumer_parked.load() == kParkedOnSocket; });
            (void)send_one(*pair.first, i, 5000);
        });
        bool found = eventually([&] { return set.wait(in_ms(100), token) == Status::ok; });
        sender.join();
        REQUIRE(found);
        REQUIRE(take_one(*pair.second, i) == Status::ok);
        while (set.wait(in_ms(1), token) == Status::ok) {}
        pollfd entry{pair.second->connection()->socket(), POLLIN, 0};
        CHECK(::poll(&entry, 1, 0) == 0);
    }
}

TEST_CASE("a batch wakes the consumer once, at its end") {
    BusPair pair = large_pair();
    pair.header->consumer_parked.store(kParkedOnFutex);
    const std::string text(5000, 'x');
    {
        Batch batch(*pair.first);
        CHECK(batch.try_send(text.data(), text.size(), 1) == Status::ok);
        Claim claim = batch.claim(5000);
        CHECK(claim.commit() == Status::ok);
        CHECK(pair.header->consumer_parked.load() == kParkedOnFutex);
    }
    CHECK(pair.header->consumer_parked.load() == kAwake);
    CHECK(pair.second->recv().text() == text);
    CHECK(pair.second->recv().data().size() == 5000);
}

TEST_CASE("a host is unlocked while the memory is made and filled") {
    BusPair pair = large_pair();
    int unlocks = 0;
    Waiting waiting;
    waiting.host = {[](void* count) { ++*static_cast<int*>(count); }, [](void*) {}, &unlocks};
    const std::string text(kLargeCopy, 'x');
    CHECK(pair.first->send(std::as_bytes(std::span(text)), 1, waiting) == Status::ok);
    CHECK(unlocks == 1);
    CHECK(pair.first->claim(5000, waiting).commit() == Status::ok);
    CHECK(unlocks == 2);
}

TEST_CASE("a lent ring says what comes, and leaves it to the bus") {
    BusPair pair = large_pair();
    REQUIRE(send_one(*pair.first, 0) == Status::ok);
    REQUIRE(send_one(*pair.first, 1, 5000) == Status::ok);
    Consumer* consumer = nullptr;
    REQUIRE(pair.second->lend_consumer(consumer) == Status::ok);
    Frame frame{};
    REQUIRE(consumer->peek(frame) == Status::ok);
    consumer->release(frame);
    CHECK(consumer->peek(frame) == Status::too_large);
    CHECK(consumer->peek(frame) == Status::too_large);
    pair.second->take_back();
    CHECK(take_one(*pair.second, 1) == Status::ok);
}

TEST_CASE("calls and replies beyond their rings are matched like others, and set aside") {
    const Held before;
    {
        int sockets[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0);
        const auto side = [&](int i, Side which) {
            auto connection = std::make_shared<Connection>(Descriptor(sockets[i]), which);
            connection->set_max_large(kMaxLarge);
            return connection;
        };
        const auto near = side(0, Side::listener), far = side(1, Side::connector);
        RpcRings listener, connector;
        for (const auto ring : {&RpcRings::calls, &RpcRings::replies}) {
            const Side producer = ring == &RpcRings::calls ? Side::connector : Side::listener;
            RingSegment ours = RingSegment::create(4096);
            RingSegment theirs = RingSegment::attach(Descriptor(::fcntl(ours.descriptor(), F_DUPFD_CLOEXEC, 0)), 4096);
            ours.close_descriptor();
            theirs.close_descriptor();
            listener.*ring = std::make_unique<Bus>(near, std::move(ours), producer);
            connector.*ring = std::make_unique<Bus>(far, std::move(theirs), producer);
        }
        Caller caller(connector);
        Callee callee(listener);
        std::vector<std::uint64_t> ids(6);
        for (std::size_t i = 0; i < ids.size(); ++i) {
            const std::string text(5000 + i, static_cast<char>('a' + i));
            REQUIRE(caller.call(std::as_bytes(std::span(text)), 7, ids[i]) == Status::ok);
            const Message call = callee.serve();
            REQUIRE(call.text() == text);
            REQUIRE(callee.reply(call.correlation_id(), call.data()) == Status::ok);
        }
        for (std::size_t i = ids.size(); i-- > 0;) {  // the last first: the others are set aside
            const Message reply = caller.wait(ids[i], Waiting::until(0));
            REQUIRE(reply.text() == std::string(5000 + i, static_cast<char>('a' + i)));
        }
        CHECK(caller.dropped() == 0);
    }
    CHECK(Held() == before);
}
