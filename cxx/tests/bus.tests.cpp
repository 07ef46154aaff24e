#include "tachyon/bus.hpp"

#include <cstring>
#include <vector>

#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

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
    pair.first->take_back();
    Frame frame{};
    REQUIRE(consumer->peek(frame) == Status::ok);
    consumer->release(frame);
    REQUIRE(consumer->peek(frame) == Status::ok);
    REQUIRE(consumer->peek(frame) == Status::ok);
    pair.second->take_back();
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
