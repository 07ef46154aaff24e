#include "tachyon/port/inlet.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/bus.hpp"

using namespace tachyon;
using namespace tachyon::test;
using namespace std::chrono_literals;

namespace {

struct Ends {
    explicit Ends(std::uint64_t capacity = 4096) : pair(make_pair(capacity)) {}
    void send(std::string_view text, std::uint32_t type_id = 0) {
        REQUIRE(producer.try_send(text.data(), text.size(), type_id) == Status::ok);
    }
    // Bytes that the producer may not write to.
    [[nodiscard]] std::uint64_t taken() const { return producer.stats().position - pair.header->read_position.load(); }
    BusPair pair;
    Bus& producer = *pair.first;
    Bus& consumer = *pair.second;
};

}  // namespace

TEST_CASE("a message is there in place, until it goes") {
    Ends ends;
    ends.send("hello", 7);
    {
        const Message message = ends.consumer.recv(1s);
        REQUIRE(message);
        CHECK(message.status() == Status::ok);
        CHECK(message.text() == "hello");
        CHECK(message.data().size() == 5);
        CHECK(message.type_id() == 7);
        CHECK(message.correlation_id() == 0);
        CHECK(ends.taken() == kLine);
    }
    CHECK(ends.taken() == 0);  // told at once: nothing else is there
}

TEST_CASE("without a message there is a reason, and no bytes") {
    Ends ends;
    const auto look = [&](const Message& message) {
        CHECK_FALSE(message);
        CHECK(message.text().empty());
        CHECK(message.data().empty());
        return message.status();
    };
    CHECK(look(ends.consumer.try_recv()) == Status::empty);
    CHECK(look(ends.consumer.recv(0ms)) == Status::empty);
    CHECK(look(ends.consumer.recv(-1s)) == Status::empty);
    CHECK(look(ends.consumer.recv(Waiting::until(now_ns() - 1))) == Status::empty);
    CHECK(look(ends.consumer.recv(1ms)) == Status::empty);
    Waiting waiting;
    waiting.interrupt = {[](void*) { return true; }, nullptr};
    CHECK(look(ends.consumer.recv(waiting)) == Status::interrupted);
    ends.send("x");
    CHECK(look(ends.producer.recv()) == Status::wrong_side);
    ends.consumer.close();
    CHECK(look(ends.consumer.recv()) == Status::closed);
}

TEST_CASE("messages may be let go of in any order, and moved") {
    Ends ends;
    std::vector<int> order{0, 1, 2, 3, 4};
    do {
        std::vector<Message> messages;
        for (int i = 0; i < 5; ++i) {
            ends.send(std::to_string(i));
            messages.push_back(ends.consumer.recv());
        }
        for (const int i : order) {
            Message& message = messages[static_cast<std::size_t>(i)];
            CHECK(message.text() == std::to_string(i));
            message.release();
            message.release();
            CHECK_FALSE(message);
        }
        REQUIRE(ends.taken() == 0);
    } while (std::ranges::next_permutation(order).found);
    ends.send("first");
    ends.send("second");
    Message first = ends.consumer.recv();
    Message moved = std::move(first);
    CHECK_FALSE(first);  // NOLINT(bugprone-use-after-move)
    CHECK(moved.text() == "first");
    moved = ends.consumer.recv();  // lets the first one go
    CHECK(moved.text() == "second");
    CHECK(ends.producer.stats().position - ends.pair.header->read_position.load() == kLine);
    Message& same = moved;
    moved = std::move(same);
    CHECK(moved.text() == "second");
    moved.release();
    CHECK(ends.taken() == 0);
}

TEST_CASE("a message waits in a thread until it comes, or the bus is closed") {
    Ends ends;
    ends.send("x");
    REQUIRE(ends.consumer.recv());
    SECTION("it comes") {
        std::thread sender([&] {
            sleep_us(20'000);
            (void)ends.producer.try_send("late", 4, 0);
        });
        CHECK(ends.consumer.recv().text() == "late");
        sender.join();
    }
    SECTION("the bus is closed") {
        std::thread closer([&] {
            sleep_us(20'000);
            ends.consumer.request_close();
        });
        CHECK(ends.consumer.recv().status() == Status::closed);
        closer.join();
    }
}

// ---- ranges --------------------------------------------------------------------------------------------------------------

TEST_CASE("a range of messages ends, and says why") {
    Ends ends;
    ends.send("a");
    ends.send("b");
    Status expected = Status::empty;
    Waiting waiting = 20ms;
    SECTION("the time for all of them is over") {}
    SECTION("the peer has closed") {
        ends.producer.close();
        expected = Status::peer_closed;
        waiting = {};
    }
    SECTION("the peer has given up") {
        ends.producer.close(End::aborted);
        expected = Status::peer_aborted;
        waiting = {};
    }
    SECTION("we are interrupted") {
        waiting = {};
        waiting.interrupt = {[](void*) { return true; }, nullptr};
        expected = Status::interrupted;
    }
    SECTION("the peer writes what cannot be") {
        ends.send("c");
        detail::word_at(ends.pair.data + 2 * kLine).store(commit_word(1 << 30, 0));
        expected = Status::corrupt;
    }
    std::string text;
    auto messages = ends.consumer.messages(waiting);
    for (const Message& message : messages) text += message.text();
    CHECK(text == "ab");
    CHECK(messages.status() == expected);
}

TEST_CASE("a range tells a death from an end") {
    if (TACHYON_TEST_TSAN) return;
    const Folder folder;
    const bool dies = GENERATE(true, false);
    Child producer([&] {
        const auto bus = Bus::connect(folder.file(), connect_options());
        for (int i = 0; i < 1000; ++i) TACHYON_CHILD_CHECK(bus->send(std::as_bytes(std::span(&i, 1)), 1) == Status::ok);
        if (dies) ::raise(SIGKILL);
        return 0;
    });
    const auto bus = Bus::listen(folder.file(), listen_options(4096));
    int count = 0;
    auto messages = bus->messages(30s);
    for (const Message& message : messages) {
        int number = -1;
        REQUIRE(message.data().size() == sizeof number);
        std::memcpy(&number, message.data().data(), sizeof number);
        REQUIRE(number == count++);
    }
    CHECK(count == 1000);
    CHECK(messages.status() == (dies ? Status::peer_dead : Status::peer_closed));
    CHECK(producer.wait() == (dies ? -SIGKILL : 0));
}

TEST_CASE("a range lets each message go before the next one is waited for") {
    Ends ends(4096);
    const std::string large(ends.producer.max_message_size(), 'x');
    ends.send(large);
    std::thread sender([&] {
        for (int i = 0; i < 20; ++i) (void)ends.producer.send(std::as_bytes(std::span(large)), 1, 30s);
        ends.producer.close();
    });
    int count = 0;
    for (const Message& message : ends.consumer.messages(30s)) count += message.text() == large;
    sender.join();
    CHECK(count == 21);
}

TEST_CASE("a loop that is left lets its message go, and another one goes on") {
    Ends ends;
    for (const char* text : {"a", "b", "c"}) ends.send(text);
    {
        auto messages = ends.consumer.messages(20ms);
        for (const Message& message : messages) {
            if (message.text() == "b") break;
        }
        CHECK(messages.status() == Status::ok);
        CHECK(ends.taken() != 0);
    }
    std::string rest;
    for (const Message& message : ends.consumer.messages(20ms)) rest += message.text();
    CHECK(rest == "c");
    CHECK(ends.taken() == 0);
}
