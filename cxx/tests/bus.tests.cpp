#include "tachyon/bus.hpp"

#include <pthread.h>

#include <cstring>
#include <vector>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

constexpr Barrier kBarriers[] = {Barrier::locked, Barrier::membarrier};

Status send_one(Bus& bus, std::uint64_t sequence, std::uint64_t size = 40) {
    std::vector<std::uint8_t> bytes(size + 8);
    write_message(bytes.data(), size, size, sequence);
    return bus.try_send(bytes.data(), size, static_cast<std::uint32_t>(sequence), sequence);
}

// Peeks, checks and releases one message.
Status take_one(Bus& bus, std::uint64_t sequence) {
    Frame frame{};
    const Status status = bus.try_peek(frame);
    if (status != Status::ok) return status;
    const char* const wrong = check_message(frame, sequence);
    INFO((wrong != nullptr ? wrong : "message is right"));
    REQUIRE(wrong == nullptr);
    return bus.release(frame);
}

// A peek that is sure to ask the kernel about the peer: that happens only every 0.1 ms.
Status settled_peek(Bus& bus, Frame& frame) {
    Status status = bus.try_peek(frame);
    const std::uint64_t until = in_ms(20'000);
    while (status == Status::empty && now_ns() < until) {
        sleep_us(500);
        status = bus.try_peek(frame);
    }
    return status;
}

// One end of a bus whose other end the test plays by hand: the memory, and a socket whose end is a death.
struct HalfBus {
    explicit HalfBus(std::uint64_t capacity = 4096, Side side = Side::listener) {
        int sockets[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0);
        Descriptor near(sockets[0]);
        socket = Descriptor(sockets[1]);
        Segment ours = Segment::create(capacity);
        memory = Segment::attach(Descriptor(::fcntl(ours.descriptor(), F_DUPFD_CLOEXEC, 0)), capacity);
        ours.close_descriptor();
        memory.close_descriptor();
        header = memory.header();
        data = memory.ring(Barrier::locked).data;
        bus = std::make_unique<Bus>(Connection(std::move(near), side), std::move(ours));
    }
    void die() { socket.reset(); }

    Descriptor socket;
    Segment memory;
    SegmentHeader* header = nullptr;
    std::uint8_t* data = nullptr;
    std::unique_ptr<Bus> bus;
};

void set_role(const HalfBus& half, std::uint32_t value) { half.header->producer_side.store(value); }

constexpr auto kListener = static_cast<std::uint32_t>(Side::listener);
constexpr auto kConnector = static_cast<std::uint32_t>(Side::connector);

}  // namespace

// ---- roles ---------------------------------------------------------------------------------------------------------------

TEST_CASE("the first send decides who is the producer") {
    BusPair pair = make_pair(4096);
    SECTION("the listener's side") {}
    SECTION("the connector's side") { std::swap(pair.first, pair.second); }
    Frame frame{};
    CHECK(pair.first->try_peek(frame) == Status::empty);
    CHECK(pair.second->try_peek(frame) == Status::empty);
    CHECK(pair.first->stats().producer == Side::undecided);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    CHECK(send_one(*pair.second, 1) == Status::wrong_side);
    CHECK(pair.first->try_peek(frame) == Status::wrong_side);
    CHECK(pair.first->wait_readable(0) == Status::wrong_side);
    CHECK(pair.second->wait_writable(1, 0) == Status::wrong_side);
    std::uint8_t* payload = nullptr;
    CHECK(pair.second->try_claim(1, payload) == Status::wrong_side);
    CHECK(pair.second->commit(0, 0) == Status::wrong_side);
    CHECK(pair.second->abort() == Status::wrong_side);
    CHECK(pair.first->release(frame) == Status::wrong_side);
    CHECK(take_one(*pair.second, 1) == Status::ok);
    CHECK(pair.first->stats().producer == pair.first->stats().side);
    CHECK(pair.second->stats().producer == pair.first->stats().side);
}

TEST_CASE("a side that learns that it is the consumer by trying to send receives from then on") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    CHECK(send_one(*pair.second, 9) == Status::wrong_side);
    CHECK(take_one(*pair.second, 1) == Status::ok);
    CHECK(send_one(*pair.second, 9) == Status::wrong_side);
}

TEST_CASE("a claim decides as a send does, even if it is aborted") {
    BusPair pair = make_pair(4096);
    std::uint8_t* payload = nullptr;
    REQUIRE(pair.first->try_claim(10, payload) == Status::ok);
    CHECK(pair.first->abort() == Status::ok);
    CHECK(send_one(*pair.second, 1) == Status::wrong_side);
}

TEST_CASE("a message that is too large decides nothing") {
    BusPair pair = make_pair(4096);
    CHECK(pair.first->max_message_size() == 4080);
    CHECK(pair.first->capacity() == 4096);
    std::vector<std::uint8_t> bytes(5000);
    std::uint8_t* payload = nullptr;
    for (const std::uint64_t size :
         {std::uint64_t{4081}, std::uint64_t{5000}, std::uint64_t{1} << 32, ~std::uint64_t{0}}) {
        CHECK(pair.first->try_send(bytes.data(), size, 1) == Status::too_large);
        CHECK(pair.first->try_claim(size, payload) == Status::too_large);
        CHECK(pair.first->wait_writable(size, 0) == Status::too_large);
    }
    REQUIRE(send_one(*pair.second, 1) == Status::ok);
    CHECK(take_one(*pair.first, 1) == Status::ok);
    for (const std::uint64_t size : {std::uint64_t{4081}, ~std::uint64_t{0}}) {
        CHECK(pair.second->try_send(bytes.data(), size, 1) == Status::too_large);
        CHECK(pair.second->try_claim(size, payload) == Status::too_large);
        CHECK(pair.second->wait_writable(size, 0) == Status::too_large);
    }
    CHECK(send_one(*pair.second, 2, 4080) != Status::too_large);
}

// ---- claims and frames ---------------------------------------------------------------------------------------------------

TEST_CASE("one claim at a time, and neither commit nor abort without one") {
    BusPair pair = make_pair(4096);
    Bus& bus = *pair.first;
    REQUIRE(send_one(bus, 1) == Status::ok);
    CHECK(bus.commit(0, 0) == Status::no_claim);
    CHECK(bus.abort() == Status::no_claim);
    std::uint8_t *payload = nullptr, *other = nullptr;
    REQUIRE(bus.try_claim(100, payload) == Status::ok);
    CHECK(bus.try_claim(1, other) == Status::claim_open);
    CHECK(send_one(bus, 9) == Status::claim_open);
    CHECK(bus.try_send_quietly("x", 1, 1) == Status::claim_open);
    CHECK(bus.wait_writable(1, 0) == Status::claim_open);
    CHECK(bus.commit(113, 2) == Status::too_large);  // beyond the lines that were claimed
    write_message(payload, 90, 100, 2);
    CHECK(bus.commit(90, 2, 2) == Status::ok);
    CHECK(bus.commit(0, 0) == Status::no_claim);
    CHECK(take_one(*pair.second, 1) == Status::ok);
    CHECK(take_one(*pair.second, 2) == Status::ok);
    Frame frame{};
    CHECK(pair.second->try_peek(frame) == Status::empty);
}

TEST_CASE("a claim that finds no room leaves none open") {
    BusPair pair = make_pair(128);
    std::uint8_t* payload = nullptr;
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    REQUIRE(send_one(*pair.first, 2) == Status::ok);
    CHECK(pair.first->try_claim(1, payload) == Status::full);
    CHECK(payload == nullptr);
    CHECK(pair.first->abort() == Status::no_claim);
    CHECK(send_one(*pair.first, 3) == Status::full);
    CHECK(take_one(*pair.second, 1) == Status::ok);
    CHECK(send_one(*pair.first, 3) == Status::ok);
}

TEST_CASE("release without a frame is refused, and frames are held and put back") {
    BusPair pair = make_pair(4096);
    for (std::uint64_t i = 1; i <= 3; ++i) REQUIRE(send_one(*pair.first, i) == Status::ok);
    Frame first{}, second{};
    REQUIRE(pair.second->try_peek(first) == Status::ok);
    REQUIRE(pair.second->try_peek(second) == Status::ok);
    pair.second->put_back(second);
    CHECK(pair.second->release(first) == Status::ok);
    CHECK(pair.second->release(first) == Status::no_claim);
    pair.second->put_back(first);  // nothing is held: no effect
    CHECK(take_one(*pair.second, 2) == Status::ok);
    CHECK(take_one(*pair.second, 3) == Status::ok);
    CHECK(pair.second->release(first) == Status::no_claim);
}

TEST_CASE("a lent ring is the one of the bus, and what was open is put right when it comes back") {
    BusPair pair = make_pair(4096);
    tachyon::Producer* producer = nullptr;
    tachyon::Consumer* consumer = nullptr;
    REQUIRE(pair.second->lend_consumer(consumer) == Status::ok);  // nobody has sent anything yet
    REQUIRE(pair.first->lend_producer(producer) == Status::ok);
    CHECK(pair.second->lend_producer(producer) == Status::wrong_side);
    CHECK(pair.first->lend_consumer(consumer) == Status::wrong_side);
    for (int i = 0; i < 3; ++i) REQUIRE(producer->try_send(&i, sizeof i, 1));
    REQUIRE(producer->try_claim(8) != nullptr);
    pair.first->give_back();
    Frame frame{};
    REQUIRE(consumer->peek(frame) == Status::ok);
    consumer->release(frame);
    REQUIRE(consumer->peek(frame) == Status::ok);
    REQUIRE(consumer->peek(frame) == Status::ok);
    pair.second->give_back();
    std::uint8_t* payload = nullptr;
    CHECK(pair.first->try_claim(8, payload) == Status::ok);
    CHECK(pair.first->abort() == Status::ok);
    for (int i = 1; i < 3; ++i) {
        REQUIRE(pair.second->try_peek(frame) == Status::ok);
        int number = 0;
        std::memcpy(&number, frame.payload, sizeof number);
        CHECK(number == i);
        CHECK(pair.second->release_checked(frame) == Status::ok);
        CHECK(pair.second->release_checked(frame) == Status::no_claim);
    }
}

TEST_CASE("check tells of the peer, a consumer only once it has read everything") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    CHECK(pair.first->check() == Status::ok);
    CHECK(pair.second->check() == Status::ok);
    pair.first->close();
    CHECK(pair.first->check() == Status::closed);
    CHECK(pair.second->check() == Status::ok);
    CHECK(take_one(*pair.second, 1) == Status::ok);
    CHECK(pair.second->check() == Status::peer_closed);
    CHECK(pair.second->release_checked(Frame{}) == Status::no_claim);
}

TEST_CASE("hand_back tells the producer of what was released so far") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    REQUIRE(take_one(*pair.second, 1) == Status::ok);
    CHECK(pair.header->read_position.load() == 0);
    pair.second->hand_back();
    CHECK(pair.header->read_position.load() == 64);
    pair.first->hand_back();  // not its business: no effect
    CHECK(pair.header->read_position.load() == 64);
}

TEST_CASE("messages of every size pass, up to the largest, in both forms of the barrier") {
    for (const Barrier barrier : kBarriers) {
        BusPair pair = make_pair(1024, barrier);
        CHECK(pair.first->barrier() == barrier);
        for (std::uint64_t size = 0; size <= pair.first->max_message_size(); ++size) {
            Status status = Status::full;
            Frame frame{};
            for (int tries = 0; (status = send_one(*pair.first, size, size)) == Status::full; ++tries) {
                REQUIRE(tries < 3);
                REQUIRE(pair.second->try_peek(frame) == Status::empty);
            }
            REQUIRE(status == Status::ok);
            REQUIRE(pair.second->try_peek(frame) == Status::ok);
            REQUIRE(frame.size == size);
            REQUIRE(check_message(frame, size) == nullptr);
            REQUIRE(pair.second->release(frame) == Status::ok);
        }
        const Stats producer = pair.first->stats(), consumer = pair.second->stats();
        CHECK(producer.messages == 1009);
        CHECK(consumer.messages == 1009);
        CHECK(producer.position == consumer.position);
        CHECK(producer.side == Side::listener);
        CHECK(consumer.side == Side::connector);
    }
}

TEST_CASE("a quiet send is visible to whoever looks, and wakes only when told to") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    pair.header->consumer_parked.store(1);
    REQUIRE(pair.first->try_send_quietly("x", 1, 5) == Status::ok);
    CHECK(pair.header->consumer_parked.load() == 1);
    pair.first->wake_consumer();
    CHECK(pair.header->consumer_parked.load() == 0);
    CHECK(pair.first->stats().wakes == 1);
    CHECK(take_one(*pair.second, 1) == Status::ok);
    Frame frame{};
    CHECK(pair.second->try_peek(frame) == Status::ok);
    CHECK(frame.type_id == 5);
    pair.second->wake_consumer();  // of a consumer: no effect
    CHECK(pair.second->stats().wakes == 0);
}

TEST_CASE("spinning looks and nothing else") {
    BusPair pair = make_pair(128);
    CHECK_FALSE(pair.second->spin_readable(100));
    CHECK(pair.first->spin_writable(100, 1));
    CHECK(pair.first->stats().producer == Side::undecided);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    REQUIRE(send_one(*pair.first, 2) == Status::ok);
    CHECK(pair.second->spin_readable(1));
    CHECK_FALSE(pair.second->spin_readable(0));
    CHECK_FALSE(pair.first->spin_writable(1, 100));
}

// ---- waiting -------------------------------------------------------------------------------------------------------------

TEST_CASE("a wait that has something to find returns at once, and one whose time is over does not wait") {
    BusPair pair = make_pair(128);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    CHECK(pair.first->wait_writable(1, kNever) == Status::ok);
    CHECK(pair.second->wait_readable(kNever) == Status::ok);
    CHECK(pair.second->wait_readable(0) == Status::ok);
    REQUIRE(take_one(*pair.second, 1) == Status::ok);
    CHECK(pair.second->wait_readable(0) == Status::empty);
    REQUIRE(send_one(*pair.first, 2) == Status::ok);
    REQUIRE(send_one(*pair.first, 3) == Status::ok);
    CHECK(pair.first->wait_writable(1, 0) == Status::full);
    CHECK(pair.first->stats().parks == 0);
    CHECK(pair.second->stats().parks == 0);
}

TEST_CASE("a wait ends with its slice, so that its caller can look at the clock and at signals") {
    for (const bool pure_spin : {false, true}) {
        BusPair pair = make_pair(64);
        pair.first->set_polling_mode(pure_spin);
        pair.second->set_polling_mode(pure_spin);
        CHECK(pair.second->wait_readable(kNever) == Status::empty);
        REQUIRE(send_one(*pair.first, 1) == Status::ok);
        CHECK(pair.first->wait_writable(1, kNever) == Status::full);
        CHECK((pair.first->stats().parks == 0) == pure_spin);
        CHECK((pair.second->stats().parks == 0) == pure_spin);
        const std::uint64_t until = in_ms(10);
        CHECK(pair.first->wait_writable(1, until) == Status::full);
        CHECK(now_ns() >= until);
    }
}

TEST_CASE("waiting for a message hands back what was released before") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    REQUIRE(take_one(*pair.second, 1) == Status::ok);
    CHECK(pair.second->wait_readable(0) == Status::empty);
    CHECK(pair.header->read_position.load() == 64);
}

TEST_CASE("a message ends the wait of a consumer, room that of a producer, in both forms of the barrier") {
    for (const Barrier barrier : kBarriers) {
        for (const std::uint64_t size : {std::uint64_t{40}, std::uint64_t{1000}}) {
            BusPair pair = make_pair(1024, barrier);
            constexpr std::uint64_t kMessages = 300;
            std::atomic<int> failures{0};
            std::thread consumer([&] {
                Random random(1);
                for (std::uint64_t i = 1; i <= kMessages; ++i) {
                    if (random.one_in(4)) sleep_us(200);
                    Frame frame{};
                    const bool right = receive(*pair.second, frame, in_ms(30'000)) == Status::ok &&
                                       check_message(frame, i) == nullptr && pair.second->release(frame) == Status::ok;
                    if (!right) {
                        ++failures;
                        return;
                    }
                }
            });
            Random random(2);
            std::vector<std::uint8_t> bytes(size + 8);
            for (std::uint64_t i = 1; i <= kMessages && failures == 0; ++i) {
                if (random.one_in(4)) sleep_us(200);
                write_message(bytes.data(), size, size, i);
                const Status status =
                    send(*pair.first, bytes.data(), size, static_cast<std::uint32_t>(i), i, in_ms(30'000));
                if (status != Status::ok) ++failures;
            }
            consumer.join();
            CHECK(failures == 0);
            CHECK(pair.first->stats().parks + pair.second->stats().parks > 0);
        }
    }
}

TEST_CASE("both sides may wait for the first message, and either may then send it") {
    BusPair pair = make_pair(4096);
    int woken = 0;
    for (int round = 0; round < 40 && woken == 0; ++round) {
        pair = make_pair(4096);
        std::atomic<int> result{-1};
        std::thread waiter([&] { result = static_cast<int>(pair.second->wait_readable(kNever)); });
        REQUIRE(eventually([&] { return pair.header->consumer_parked.load() == 1 || result >= 0; }));
        // This side waits on the same word for a while, and gives up before the other does.
        CHECK(pair.first->wait_readable(in_ms(5)) != Status::corrupt);
        CHECK(send_one(*pair.first, 1) == Status::ok);
        waiter.join();
        woken += result == static_cast<int>(Status::ok);
        CHECK(take_one(*pair.second, 1) == Status::ok);
    }
    CHECK(woken > 0);  // and not only the end of the slice
}

TEST_CASE("a signal ends a wait, and its caller is told") {
    struct sigaction action{}, before{};
    action.sa_handler = [](int) {};
    REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
    for (const bool writing : {false, true}) {
        BusPair pair = make_pair(64);
        if (writing) REQUIRE(send_one(*pair.first, 1) == Status::ok);
        std::atomic<bool> interrupted{false}, stop{false};
        std::thread waiter([&] {
            while (!stop && !interrupted) {
                const Status status =
                    writing ? pair.first->wait_writable(1, kNever) : pair.second->wait_readable(kNever);
                if (status == Status::interrupted) interrupted = true;
            }
        });
        const bool told = eventually([&] {
            if (!interrupted) ::pthread_kill(waiter.native_handle(), SIGUSR1);
            sleep_us(1000);
            return interrupted.load();
        });
        stop = true;
        waiter.join();
        CHECK(told);
    }
    ::sigaction(SIGUSR1, &before, nullptr);
}

// ---- the end -------------------------------------------------------------------------------------------------------------

TEST_CASE("everything committed before a close is read before the close is told") {
    BusPair pair = make_pair(4096);
    for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(send_one(*pair.first, i, 100) == Status::ok);
    std::uint8_t* payload = nullptr;
    REQUIRE(pair.first->try_claim(50, payload) == Status::ok);  // never committed
    std::memset(payload, 0xff, 50);
    SECTION("closed") { pair.first->close(); }
    SECTION("destroyed") { pair.first.reset(); }
    for (std::uint64_t i = 1; i <= 10; ++i) {
        CHECK(pair.second->wait_readable(kNever) == Status::ok);
        REQUIRE(take_one(*pair.second, i) == Status::ok);
    }
    Frame frame{};
    for (int i = 0; i < 3; ++i) CHECK(pair.second->try_peek(frame) == Status::peer_closed);
    CHECK(pair.second->state() == Status::ok);  // its own handle is still open
    CHECK(receive(*pair.second, frame, kNever) == Status::peer_closed);
}

TEST_CASE("everything committed before a death is read before the death is told") {
    HalfBus half;
    set_role(half, kConnector);
    Producer producer(half.memory.ring(Barrier::locked));
    for (std::uint64_t i = 1; i <= 10; ++i) {
        std::uint8_t* const payload = producer.try_claim(100);
        REQUIRE(payload != nullptr);
        write_message(payload, 100, 100, i);
        producer.commit(100, static_cast<std::uint32_t>(i), i);
    }
    std::uint8_t* const payload = producer.try_claim(100);  // half a frame: all but the commit word
    REQUIRE(payload != nullptr);
    std::memset(payload - 8, 0xff, 108);
    half.die();
    for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(take_one(*half.bus, i) == Status::ok);
    Frame frame{};
    CHECK(settled_peek(*half.bus, frame) == Status::peer_dead);
    CHECK(receive(*half.bus, frame, kNever) == Status::peer_dead);
}

TEST_CASE("a death that was told once is told by every later look") {
    HalfBus half;
    half.die();
    Frame frame{};
    REQUIRE(settled_peek(*half.bus, frame) == Status::peer_dead);
    for (int i = 0; i < 100; ++i) REQUIRE(half.bus->try_peek(frame) == Status::peer_dead);
}

TEST_CASE("a death before anything was sent is told to whoever reads or writes") {
    Frame frame{};
    HalfBus reader;
    reader.die();
    CHECK(settled_peek(*reader.bus, frame) == Status::peer_dead);
    HalfBus writer;
    writer.die();
    CHECK(send_one(*writer.bus, 1) == Status::peer_dead);
    CHECK(send_one(*writer.bus, 2) == Status::peer_dead);
}

TEST_CASE("a close before anything was sent is told to whoever reads or writes") {
    Frame frame{};
    BusPair reading = make_pair(4096);
    reading.first->close();
    CHECK(reading.second->wait_readable(kNever) == Status::ok);
    CHECK(reading.second->try_peek(frame) == Status::peer_closed);
    BusPair writing = make_pair(4096);
    writing.first->close();
    CHECK(send_one(*writing.second, 1) == Status::peer_closed);
    std::uint8_t* payload = nullptr;
    CHECK(writing.second->try_claim(1, payload) == Status::peer_closed);
    CHECK(writing.second->wait_writable(1, kNever) == Status::peer_closed);
}

TEST_CASE("a message that comes between the reader's look at the ring and its look at the peer is not lost") {
    // The last message and the end come between the look at the ring and the look at the peer, sooner or later.
    std::uint64_t lost = 0, rounds = 0;
    const std::uint64_t until = in_ms(long_form() ? 30'000 : 500);
    Random random(61);
    while (now_ns() < until) {
        const bool closes = rounds++ % 2 == 0;
        HalfBus half;
        set_role(half, kConnector);
        Producer producer(half.memory.ring(Barrier::locked));
        std::atomic<bool> reading{false};
        std::thread ending([&] {
            while (!reading) cpu_relax();
            for (std::uint64_t n = random.below(300); n > 0; --n) cpu_relax();
            (void)producer.try_send("last", 4, 2, 2);
            if (closes) half.header->connector_closed.store(1);
            half.die();
        });
        Frame frame{};
        Status status = Status::empty;
        while (status == Status::empty) {
            status = half.bus->try_peek(frame);
            reading = true;
        }
        lost += status != Status::ok;
        ending.join();
    }
    CHECK(lost == 0);
    CHECK(rounds > 10);
}

TEST_CASE("a producer is told of the consumer's close by the next send, and by its wait") {
    BusPair pair = make_pair(128);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    SECTION("with room left") {
        pair.second->close();
        CHECK(pair.first->wait_writable(1, kNever) == Status::peer_closed);  // though there is room
        CHECK(send_one(*pair.first, 2) == Status::peer_closed);
    }
    SECTION("with none left") {
        REQUIRE(send_one(*pair.first, 2) == Status::ok);
        pair.second->close();
        CHECK(pair.first->wait_writable(1, kNever) == Status::peer_closed);
        CHECK(send_one(*pair.first, 3) == Status::peer_closed);
    }
    SECTION("with a claim open") {
        std::uint8_t* payload = nullptr;
        REQUIRE(pair.first->try_claim(10, payload) == Status::ok);
        pair.second->close();
        write_message(payload, 10, 10, 2);
        CHECK(pair.first->commit(10, 2, 2) == Status::peer_closed);
    }
    for (int i = 0; i < 3; ++i) CHECK(send_one(*pair.first, 9) == Status::peer_closed);
    CHECK(pair.first->wait_writable(1, kNever) == Status::peer_closed);
    CHECK(pair.first->abort() == Status::peer_closed);
    CHECK(pair.first->state() == Status::ok);
}

TEST_CASE("a producer that waits for room is told of the consumer's death") {
    HalfBus half(128);
    REQUIRE(send_one(*half.bus, 1) == Status::ok);
    REQUIRE(send_one(*half.bus, 2) == Status::ok);
    half.die();
    std::uint8_t bytes[8] = {};
    CHECK(send(*half.bus, bytes, 8, 1, 1, in_ms(30'000)) == Status::peer_dead);
    CHECK(half.bus->wait_writable(1, kNever) == Status::peer_dead);
}

TEST_CASE("a producer with room is told of the consumer's death by its next send, however seldom it sends") {
    for (const std::uint64_t before : {1u, 100u}) {  // also after it has been fast
        HalfBus half(1 << 20);
        for (std::uint64_t i = 0; i < before; ++i) REQUIRE(send_one(*half.bus, i) == Status::ok);
        half.die();
        sleep_us(15'000);  // a tick of the slowest kernel, and a little
        CHECK(send_one(*half.bus, before) == Status::peer_dead);
        CHECK(send_one(*half.bus, before) == Status::peer_dead);
    }
}

TEST_CASE("both sides tell a third process what they have done") {
    BusPair pair = make_pair(4096);
    const SegmentHeader& header = *pair.header;
    Frame frame{};
    for (std::uint64_t i = 0; i < 5; ++i) {
        REQUIRE(send_one(*pair.first, i) == Status::ok);
        sleep_us(15'000);  // each in a tick of its own
        CHECK(header.producer.messages.load() == i + 1);
        CHECK(header.write_position.load() == (i + 1) * kLine);
        REQUIRE(pair.second->try_peek(frame) == Status::ok);
        REQUIRE(pair.second->release(frame) == Status::ok);
    }
    const std::uint64_t waits = header.consumer.waits.load(), parks = header.consumer.parks.load();
    CHECK(pair.second->wait_readable(in_ms(20)) == Status::empty);
    CHECK(header.consumer.waits.load() == waits + 1);
    CHECK(header.consumer.parks.load() == parks + 1);
    CHECK(header.consumer.parks.load() == pair.second->stats().parks);
    CHECK(header.consumer.messages.load() == 5);
    CHECK(header.consumer.active_ns.load() != 0);
    REQUIRE(send_one(*pair.first, 5) == Status::ok);
    pair.first->close();
    CHECK(header.producer.messages.load() == 6);
    CHECK(header.producer.active_ns.load() != 0);
    CHECK(header.producer.waits.load() == 0);
}

TEST_CASE("a producer with room is told of the consumer's death by a later send") {
    HalfBus half(1 << 20);
    REQUIRE(send_one(*half.bus, 1) == Status::ok);
    half.die();
    Status status = Status::ok;
    CHECK(eventually([&] { return (status = send_one(*half.bus, 2)) != Status::ok; }, 2'000));
    CHECK(status == Status::peer_dead);
}

TEST_CASE("a hang-up after the closed flag is a close, and one without it a death") {
    for (const bool closed : {true, false}) {
        HalfBus reader, writer;
        set_role(reader, kConnector);
        REQUIRE(send_one(*writer.bus, 1) == Status::ok);
        if (closed) {
            reader.header->connector_closed.store(1);
            writer.header->connector_closed.store(1);
        } else {  // its own side's flag says nothing about the peer
            reader.header->listener_closed.store(1);
            writer.header->listener_closed.store(1);
        }
        reader.die();
        writer.die();
        const Status expected = closed ? Status::peer_closed : Status::peer_dead;
        Frame frame{};
        CHECK(settled_peek(*reader.bus, frame) == expected);
        Status status = Status::ok;
        CHECK(eventually([&] { return (status = send_one(*writer.bus, 2)) != Status::ok; }, 10'000));
        CHECK(status == expected);
    }
}

TEST_CASE("a reader that still holds frames is told of the end too, and may release them afterwards") {
    for (const bool closed : {true, false}) {
        HalfBus half;
        set_role(half, kConnector);
        Producer producer(half.memory.ring(Barrier::locked));
        REQUIRE(producer.try_send("abc", 3, 1, 1));
        Frame frame{}, next{};
        REQUIRE(half.bus->try_peek(frame) == Status::ok);
        if (closed) half.header->connector_closed.store(1);
        half.die();
        // A wait that says "look", and a look that says "nothing", would make its caller turn in circles.
        CHECK(receive(*half.bus, next, in_ms(300)) == (closed ? Status::peer_closed : Status::peer_dead));
        CHECK(frame.payload[2] == 'c');
        CHECK(half.bus->release(frame) == Status::ok);
        CHECK(settled_peek(*half.bus, next) == (closed ? Status::peer_closed : Status::peer_dead));
    }
}

TEST_CASE("an own handle that is closed says so, whatever is asked, and its frames stay readable") {
    BusPair pair = make_pair(4096);
    REQUIRE(send_one(*pair.first, 1) == Status::ok);
    Frame frame{};
    REQUIRE(pair.second->try_peek(frame) == Status::ok);
    pair.second->close();
    pair.second->close();
    pair.first->close();
    CHECK(check_message(frame, 1) == nullptr);
    std::uint8_t* payload = nullptr;
    for (Bus* const bus : {pair.first.get(), pair.second.get()}) {
        Frame other{};
        CHECK(bus->state() == Status::closed);
        CHECK(bus->try_peek(other) == Status::closed);
        CHECK(bus->release(frame) == Status::closed);
        CHECK(bus->wait_readable(kNever) == Status::closed);
        CHECK(bus->wait_writable(1, kNever) == Status::closed);
        CHECK(send_one(*bus, 2) == Status::closed);
        CHECK(bus->try_send_quietly("x", 1, 1) == Status::closed);
        CHECK(bus->try_claim(1, payload) == Status::closed);
        CHECK(bus->commit(1, 1) == Status::closed);
        CHECK(bus->abort() == Status::closed);
        bus->put_back(frame);
        bus->hand_back();
        bus->wake_consumer();
        bus->request_close();
        (void)bus->stats();
    }
}

TEST_CASE("request_close from another thread ends a wait, parked or spinning, for a message or for room") {
    for (const bool pure_spin : {false, true}) {
        for (const bool writing : {false, true}) {
            BusPair pair = make_pair(64);
            if (writing) REQUIRE(send_one(*pair.first, 1) == Status::ok);
            Bus& bus = writing ? *pair.first : *pair.second;
            bus.set_polling_mode(pure_spin);
            std::atomic<int> result{-1};
            std::atomic<bool> waiting{false};
            std::thread waiter([&] {
                Status status = Status::empty;
                while (status != Status::closed) {
                    waiting = true;
                    status = writing ? bus.wait_writable(1, kNever) : bus.wait_readable(kNever);
                }
                result = static_cast<int>(status);
            });
            CHECK(eventually([&] { return waiting.load(); }));
            sleep_us(3000);
            bus.request_close();
            CHECK(eventually([&] { return result >= 0; }));
            waiter.join();
            CHECK(bus.state() == Status::ok);  // asked for, not done
            CHECK((writing ? bus.wait_writable(1, kNever) : bus.wait_readable(kNever)) == Status::closed);
            bus.close();
            CHECK(bus.state() == Status::closed);
        }
    }
}

// TSan looks at this one.
TEST_CASE("stats may be asked for while another thread waits") {
    BusPair pair = make_pair(64);
    std::thread waiter([&] {
        while (pair.second->wait_readable(kNever) != Status::closed) {}
    });
    CHECK(eventually([&] { return pair.second->stats().parks > 1; }));
    pair.second->request_close();
    waiter.join();
}

// Both would end with their slice in any case. That they end earlier shows in one round of many, however busy the machine is.
TEST_CASE("a close wakes a peer that is parked") {
    for (const bool writing : {false, true}) {
        bool woken = false;
        for (int round = 0; round < 40 && !woken; ++round) {
            BusPair pair = make_pair(64);
            if (writing) REQUIRE(send_one(*pair.first, 1) == Status::ok);
            Bus& waiting = writing ? *pair.first : *pair.second;
            Bus& closing = writing ? *pair.second : *pair.first;
            auto& parked = writing ? pair.header->producer_parked : pair.header->consumer_parked;
            std::atomic<int> result{-1};
            std::thread waiter([&] {
                result = static_cast<int>(writing ? waiting.wait_writable(1, kNever) : waiting.wait_readable(kNever));
            });
            CHECK(eventually([&] { return parked.load() == 1 || result >= 0; }));
            sleep_us(1000);
            closing.close();
            waiter.join();
            woken = result == static_cast<int>(Status::ok);
        }
        CHECK(woken);
    }
}

TEST_CASE("request_close ends a spin before its slice is over") {
    BusPair pair = make_pair(64);
    std::uint64_t shortest = kNever;
    for (int round = 0; round < 40 && shortest > kSlice / 2; ++round) {
        pair = make_pair(64);
        pair.second->set_polling_mode(true);
        std::atomic<bool> waiting{false};
        std::thread closer([&] {
            while (!waiting) cpu_relax();
            sleep_us(1000);
            pair.second->request_close();
        });
        const std::uint64_t before = now_ns();
        waiting = true;
        CHECK(pair.second->wait_readable(kNever) == Status::closed);
        shortest = std::min(shortest, now_ns() - before);
        closer.join();
    }
    CHECK(shortest <= kSlice / 2);
}

TEST_CASE("a bus lets go of its memory and its descriptors") {
    const Held before;
    {
        std::vector<BusPair> pairs;
        for (int i = 0; i < 5; ++i) pairs.push_back(make_pair(4096));
        CHECK(count_segment_mappings() == before.mappings + 10);
        pairs.erase(pairs.begin() + 2);  // from the middle of the list of open buses
        pairs.front().second->close();
        pairs.erase(pairs.begin());
        pairs.pop_back();
        CHECK(count_segment_mappings() == before.mappings + 4);
    }
    CHECK(Held{} == before);
}

// ---- a peer that lies ------------------------------------------------------------------------------------------------------

TEST_CASE("a role that cannot be is corrupt, for a reader and for a writer") {
    for (const std::uint32_t role : {3u, 77u, 0xffffffffu, kListener}) {
        Frame frame{};
        HalfBus reader;  // the listener, which has sent nothing
        set_role(reader, role);
        CHECK(reader.bus->try_peek(frame) == Status::corrupt);
        CHECK(reader.bus->try_peek(frame) == Status::corrupt);
        CHECK(reader.bus->state() == Status::corrupt);
        HalfBus waiter;
        set_role(waiter, role);
        CHECK(waiter.bus->wait_readable(kNever) == Status::corrupt);
        HalfBus writer;
        set_role(writer, role);
        CHECK(send_one(*writer.bus, 1) == Status::corrupt);
        CHECK(writer.bus->state() == Status::corrupt);
        CHECK(writer.bus->stats().producer == (role == kListener ? Side::listener : Side::undecided));
    }
}

TEST_CASE("a message from nobody is corrupt") {
    HalfBus half;
    detail::word_at(half.data).store(commit_word(5, 5));
    Frame frame{};
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("an impossible message poisons the handle, and only the handle") {
    HalfBus half;
    set_role(half, kConnector);
    Producer producer(half.memory.ring(Barrier::locked));
    REQUIRE(producer.try_send("abc", 3, 1, 1));
    Frame held{}, frame{};
    REQUIRE(half.bus->try_peek(held) == Status::ok);
    detail::word_at(half.data + 64).store(commit_word(4096, 1));
    CHECK(half.bus->wait_readable(kNever) == Status::ok);
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
    detail::word_at(half.data + 64).store(commit_word(1, 1));
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
    CHECK(half.bus->wait_readable(kNever) == Status::corrupt);
    CHECK(half.bus->release(held) == Status::corrupt);
    CHECK(send_one(*half.bus, 1) == Status::corrupt);
    CHECK(half.bus->state() == Status::corrupt);
    half.bus->close();
    CHECK(half.bus->state() == Status::closed);
}

TEST_CASE("an impossible message that the peer leaves behind is corrupt, not a close") {
    HalfBus half;
    set_role(half, kConnector);
    detail::word_at(half.data).store(commit_word(1 << 20, 1));
    half.header->connector_closed.store(1);
    half.die();
    Frame frame{};
    CHECK(half.bus->try_peek(frame) == Status::corrupt);
}

TEST_CASE("an impossible read_position poisons the handle and ends a wait for room") {
    HalfBus half(128);
    REQUIRE(send_one(*half.bus, 1) == Status::ok);
    REQUIRE(send_one(*half.bus, 2) == Status::ok);
    half.header->read_position.store(129);
    SECTION("seen by a send") { CHECK(send_one(*half.bus, 3) == Status::corrupt); }
    SECTION("seen by a wait") {
        CHECK(half.bus->wait_writable(1, kNever) == Status::ok);  // something to see
        CHECK(send_one(*half.bus, 3) == Status::corrupt);
    }
    SECTION("seen by a claim") {
        std::uint8_t* payload = nullptr;
        CHECK(half.bus->try_claim(3, payload) == Status::corrupt);
    }
    half.header->read_position.store(64);
    CHECK(send_one(*half.bus, 3) == Status::corrupt);
    CHECK(half.bus->wait_writable(1, kNever) == Status::corrupt);
    CHECK(half.bus->commit(1, 1) == Status::corrupt);
}

TEST_CASE("whatever a peer scribbles, and wherever, the bus answers with a status") {
    Random random(41);
    const std::uint64_t until = in_ms(long_form() ? 300'000 : 1'500);
    std::uint64_t rounds = 0, corrupt = 0;
    for (; now_ns() < until; ++rounds) {
        const std::uint64_t capacity = std::uint64_t{64} << random.below(7);
        HalfBus half(capacity, random.one_in(2) ? Side::listener : Side::connector);
        auto* const words = reinterpret_cast<std::atomic<std::uint64_t>*>(half.header);
        std::vector<Frame> held;
        for (int step = 0; step < 100; ++step) {
            switch (random.below(6)) {
                case 0: words[random.below((kHeaderBytes + capacity) / 8)].store(random.next()); break;
                case 1:
                    detail::word_at(half.data + random.below(capacity / 64) * 64)
                        .store(commit_word(static_cast<std::uint32_t>(random.below(capacity)), 1));
                    break;
                case 2: half.header->read_position.store(random.below(4 * capacity)); break;
                case 3: half.header->producer_side.store(static_cast<std::uint32_t>(random.below(4))); break;
                case 4: half.header->consumer_parked.store(static_cast<std::uint32_t>(random.below(3))); break;
                default: break;
            }
            Frame frame{};
            switch (random.below(6)) {
                case 0:
                    if (half.bus->try_peek(frame) == Status::ok) held.push_back(frame);
                    break;
                case 1:
                    if (!held.empty()) {
                        (void)half.bus->release(held.front());
                        held.erase(held.begin());
                    }
                    break;
                case 2: (void)send_one(*half.bus, 1, random.below(capacity)); break;
                case 3: (void)half.bus->wait_readable(now_ns() + 1000); break;
                case 4: (void)half.bus->wait_writable(random.below(capacity), now_ns() + 1000); break;
                default: (void)half.bus->stats(); break;
            }
        }
        corrupt += half.bus->state() == Status::corrupt;
    }
    CHECK(rounds > 10);
    CHECK(corrupt > 0);
}

// ---- processes -----------------------------------------------------------------------------------------------------------

TEST_CASE("listen and connect give two ends of one bus") {
    const Folder folder;
    const Held before;
    {
        std::unique_ptr<Bus> server;
        std::thread listener([&] { server = Bus::listen(folder.file(), listen_options(1024)); });
        const std::unique_ptr<Bus> client = Bus::connect(folder.file(), connect_options());
        listener.join();
        CHECK(server->peer_pid() == ::getpid());
        CHECK(server->capacity() == 1024);
        CHECK(client->capacity() == 1024);
        REQUIRE(send_one(*client, 1) == Status::ok);
        CHECK(take_one(*server, 1) == Status::ok);
    }
    CHECK(Held{} == before);
    CHECK(folder.entries().empty());
}

#if !TACHYON_TEST_TSAN

TEST_CASE("two processes exchange messages over two buses and part in peace") {
    const Folder folder;
    constexpr std::uint64_t kMessages = 2000;
    Child echo([&] {
        const auto in = Bus::connect(folder.file("there"), connect_options());
        const auto out = Bus::connect(folder.file("back"), connect_options());
        for (std::uint64_t count = 0;; ++count) {
            Frame frame{};
            const Status status = receive(*in, frame, in_ms(30'000));
            if (status == Status::peer_closed) {
                TACHYON_CHILD_CHECK(count == kMessages);
                return 0;
            }
            TACHYON_CHILD_CHECK(status == Status::ok);
            TACHYON_CHILD_CHECK(send(*out, frame.payload, frame.size, frame.type_id, frame.correlation_id,
                                     in_ms(30'000)) == Status::ok);
            TACHYON_CHILD_CHECK(in->release(frame) == Status::ok);
        }
    });
    const auto there = Bus::listen(folder.file("there"), listen_options(512));
    const auto back = Bus::listen(folder.file("back"), listen_options(1024));
    CHECK(there->peer_pid() == echo.pid());
    Random random(51);
    std::vector<std::uint8_t> bytes(600);
    for (std::uint64_t i = 1; i <= kMessages; ++i) {
        const std::uint64_t size = random.below(there->max_message_size() + 1);
        write_message(bytes.data(), size, size, i);
        REQUIRE(send(*there, bytes.data(), size, static_cast<std::uint32_t>(i), i, in_ms(30'000)) == Status::ok);
        Frame frame{};
        REQUIRE(receive(*back, frame, in_ms(30'000)) == Status::ok);
        REQUIRE(frame.size == size);
        REQUIRE(check_message(frame, i) == nullptr);
        REQUIRE(back->release(frame) == Status::ok);
    }
    there->close();
    CHECK(echo.wait() == 0);
    Frame frame{};
    CHECK(receive(*back, frame, in_ms(30'000)) == Status::peer_closed);
}

TEST_CASE("a forked child has no bus, and the parent's goes on as if there were no child") {
    const Held before;
    {
        BusPair pair = make_pair(4096);
        BusPair undecided = make_pair(4096);
        REQUIRE(send_one(*pair.first, 1) == Status::ok);
        Frame frame{};
        REQUIRE(pair.second->try_peek(frame) == Status::ok);
        std::uint8_t* claimed = nullptr;
        REQUIRE(pair.first->try_claim(200, claimed) == Status::ok);
        write_message(claimed, 200, 200, 2);
        const std::size_t descriptors = count_descriptors();
        Child child([&] {
            // A socket and a pidfd of each of four ends are gone: they would keep the peers from seeing the parent's end.
            TACHYON_CHILD_CHECK(count_descriptors() <= descriptors - 4);
            std::uint8_t* payload = nullptr;
            for (Bus* const bus :
                 {pair.first.get(), pair.second.get(), undecided.first.get(), undecided.second.get()}) {
                Frame other{};
                TACHYON_CHILD_CHECK(bus->state() == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_send("x", 1, 1) == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_send_quietly("x", 1, 1) == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_claim(1, payload) == Status::forked);
                TACHYON_CHILD_CHECK(bus->commit(1, 1) == Status::forked);
                TACHYON_CHILD_CHECK(bus->abort() == Status::forked);
                TACHYON_CHILD_CHECK(bus->try_peek(other) == Status::forked);
                TACHYON_CHILD_CHECK(bus->release(frame) == Status::forked);
                TACHYON_CHILD_CHECK(bus->wait_readable(kNever) == Status::forked);
                TACHYON_CHILD_CHECK(bus->wait_writable(1, kNever) == Status::forked);
                bus->put_back(frame);
                bus->give_back();
                bus->hand_back();
                bus->wake_consumer();
                bus->request_close();
                bus->close();
                TACHYON_CHILD_CHECK(bus->state() == Status::forked);
            }
            pair.first.reset();
            pair.second.reset();
            undecided = {};
            // A child may open its own.
            BusPair own = make_pair(4096);
            TACHYON_CHILD_CHECK(own.first->try_send("x", 1, 1) == Status::ok);
            return 0;
        });
        CHECK(child.wait() == 0);
        CHECK(check_message(frame, 1) == nullptr);
        CHECK(pair.second->release(frame) == Status::ok);
        CHECK(pair.first->commit(200, 2, 2) == Status::ok);
        CHECK(take_one(*pair.second, 2) == Status::ok);
        sleep_us(1000);
        REQUIRE(send_one(*pair.first, 3) == Status::ok);
        CHECK(take_one(*pair.second, 3) == Status::ok);
        CHECK(pair.second->try_peek(frame) == Status::empty);
        CHECK(send_one(*undecided.second, 1) == Status::ok);
        CHECK(take_one(*undecided.first, 1) == Status::ok);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a fork while other threads open and close buses leaves both processes able to") {
    std::atomic<bool> stop{false};
    std::thread worker([&] {
        while (!stop) BusPair pair = make_pair(64);
    });
    for (int i = 0; i < 20; ++i) {
        // Nothing in the child but what may be used after a fork of a process with threads, and the list of buses.
        Child child([] { return 0; }, 30);
        REQUIRE(child.wait() == 0);
    }
    stop = true;
    worker.join();
    BusPair pair = make_pair(64);
    CHECK(send_one(*pair.first, 1) == Status::ok);
}

TEST_CASE("a dead peer whose child lives on is dead, and a closed one closed") {
    for (const bool closes : {false, true}) {
        const Folder folder;
        const Shared<std::atomic<pid_t>> grandchild;
        Child child([&] {
            const auto bus = Bus::connect(folder.file(), connect_options());
            TACHYON_CHILD_CHECK(bus->try_send("abc", 3, 1, 1) == Status::ok);
            const pid_t pid = ::fork();
            if (pid == 0) {
                ::alarm(60);
                ::pause();
                ::_exit(0);
            }
            *grandchild = pid;
            if (closes) bus->close();
            ::pause();
            return 0;
        });
        const auto bus = Bus::listen(folder.file(), listen_options());
        REQUIRE(eventually([&] { return *grandchild != 0; }));
        Frame frame{};
        REQUIRE(receive(*bus, frame, in_ms(30'000)) == Status::ok);
        REQUIRE(bus->release(frame) == Status::ok);
        if (!closes) {
            CHECK(receive(*bus, frame, in_ms(100)) == Status::empty);
            child.kill();
        }
        CHECK(receive(*bus, frame, in_ms(30'000)) == (closes ? Status::peer_closed : Status::peer_dead));
        ::kill(*grandchild, SIGKILL);
    }
}

TEST_CASE("a peer that exits without a close is dead, and nothing it committed is lost") {
    const Folder folder;
    Child child([&] {
        // Not destroyed: the process ends under it.
        Bus* const bus = Bus::connect(folder.file(), connect_options()).release();
        for (std::uint64_t i = 1; i <= 20; ++i) {
            std::uint8_t bytes[64];
            write_message(bytes, 40, 40, i);
            TACHYON_CHILD_CHECK(bus->try_send(bytes, 40, static_cast<std::uint32_t>(i), i) == Status::ok);
        }
        return 0;
    });
    const auto bus = Bus::listen(folder.file(), listen_options());
    CHECK(child.wait() == 0);
    for (std::uint64_t i = 1; i <= 20; ++i) REQUIRE(take_one(*bus, i) == Status::ok);
    Frame frame{};
    CHECK(receive(*bus, frame, in_ms(30'000)) == Status::peer_dead);
}

#endif
