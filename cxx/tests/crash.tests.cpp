// One side is killed, or closes, at a random moment: the other never hangs, loses nothing that was committed, and learns which
// it was. ThreadSanitizer has no part in it: there is nothing to see within one process (bus_end.tests.cpp plays deaths by hand).

#include <vector>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

#if TACHYON_TEST_TSAN

int main() {
    std::puts("left out: these tests kill processes that they forked, and ThreadSanitizer supports neither");
    return 77;
}

#else

namespace {

struct Tally {
    std::atomic<std::uint64_t> committed{0};  // what the victim knows to be committed; one more may be
    std::atomic<std::uint64_t> received{0};
    std::atomic<bool> wrong{false};
};

constexpr std::uint64_t kCapacities[] = {64, 128, 1024, 16384, 1 << 20};

// The bus with the barrier of this round: the handshake would always agree on the better one.
std::unique_ptr<Bus> with_barrier(Established established, Barrier barrier) {
    established.connection.set_barrier(barrier);
    return std::make_unique<Bus>(std::move(established.connection),
                                 RingSegment(std::move(established.segments.front())));
}

Status produce(Bus& bus, Tally& tally, Random& random, std::uint64_t most) {
    const std::uint64_t max = bus.max_message_size();
    for (std::uint64_t sequence = 1; sequence <= most; ++sequence) {
        const std::uint64_t size = pick_size(random, max),
                            claim = random.one_in(4) ? size + random.below(max - size + 1) : size;
        std::uint8_t* payload = nullptr;
        for (;;) {
            const Status status = bus.try_claim(claim, payload);
            if (status == Status::ok && random.one_in(16)) {
                write_message(payload, claim, claim, sequence);
                if (const Status aborted = bus.abort(); aborted != Status::ok) return aborted;
                continue;
            }
            if (status == Status::ok) break;
            if (status != Status::full) return status;
            const Status waited = bus.wait_writable(claim, kNever);
            if (waited != Status::ok && waited != Status::full) return waited;
        }
        write_message(payload, size, claim, sequence);
        const Status status =
            bus.commit(static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(sequence), sequence);
        if (status != Status::ok) return status;
        tally.committed.store(sequence);
        if (random.one_in(500)) sleep_us(100);
    }
    return Status::ok;
}

Status consume(Bus& bus, Tally& tally, Random& random) {
    std::vector<Frame> held;
    for (std::uint64_t sequence = tally.received;;) {
        Frame frame{};
        Status status = bus.try_peek(frame);
        if (status == Status::ok) {
            if (check_message(frame, sequence + held.size() + 1) != nullptr) {
                tally.wrong = true;
                return Status::corrupt;
            }
            held.push_back(frame);
            if (random.one_in(3) && held.size() < 20) continue;
        } else if (status != Status::empty && held.empty()) {
            return status;
        }
        for (const Frame& each : held) {
            tally.received.store(++sequence);
            if (const Status released = bus.release(each); released != Status::ok) return released;
        }
        if (held.empty()) {
            const Status waited = bus.wait_readable(kNever);
            if (waited != Status::ok && waited != Status::empty) return waited;
        }
        held.clear();
        if (random.one_in(500)) sleep_us(100);
    }
}

struct Round {
    explicit Round(std::uint64_t number)
        : random(1000 + number),
          capacity(kCapacities[number % std::size(kCapacities)]),
          barrier(number % 2 == 0 ? Barrier::membarrier : Barrier::locked),
          victim_listens(number % 3 == 0) {}

    // One end in this process and one in a child, either of which may have listened.
    std::unique_ptr<Bus> open(bool listens) const {
        return listens ? with_barrier(listen(folder.file(), listen_options(capacity)), barrier)
                       : with_barrier(connect(folder.file(), connect_options()), barrier);
    }

    Folder folder;
    Random random;
    std::uint64_t capacity;
    Barrier barrier;
    bool victim_listens;
    Shared<Tally> tally;
};

int rounds() { return long_form() ? 500 : 20; }

}  // namespace

TEST_CASE("a producer killed at any moment loses nothing that it committed, and its death is told") {
    const Held before;
    std::uint64_t messages = 0;
    for (int number = 0; number < rounds(); ++number) {
        Round round(static_cast<std::uint64_t>(number));
        INFO("round " << number);
        Child victim([&] {
            const auto bus = round.open(round.victim_listens);
            produce(*bus, *round.tally, round.random, ~std::uint64_t{0});
            return 1;
        });
        const auto bus = round.open(!round.victim_listens);
        Random random(static_cast<std::uint64_t>(number));
        const auto delay = static_cast<unsigned>(random.below(random.one_in(3) ? 300 : 8000));
        std::thread killer([&] {
            sleep_us(delay);
            victim.kill();
        });
        const Status status = consume(*bus, *round.tally, random);
        killer.join();
        CHECK(victim.wait() == -SIGKILL);
        REQUIRE(status == Status::peer_dead);
        REQUIRE_FALSE(round.tally->wrong);
        const std::uint64_t committed = round.tally->committed, received = round.tally->received;
        REQUIRE(received >= committed);
        REQUIRE(received <= committed + 1);
        messages += received;
    }
    CHECK(messages > 100);
    CHECK(Held{} == before);
}

TEST_CASE("a consumer killed at any moment does not leave its producer waiting, and its death is told") {
    const Held before;
    std::uint64_t messages = 0;
    for (int number = 0; number < rounds(); ++number) {
        Round round(static_cast<std::uint64_t>(number));
        INFO("round " << number);
        Child victim([&] {
            const auto bus = round.open(round.victim_listens);
            consume(*bus, *round.tally, round.random);
            return 1;
        });
        const auto bus = round.open(!round.victim_listens);
        Random random(static_cast<std::uint64_t>(number));
        const auto delay = static_cast<unsigned>(random.below(random.one_in(3) ? 300 : 8000));
        std::thread killer([&] {
            sleep_us(delay);
            victim.kill();
        });
        const Status status = produce(*bus, *round.tally, random, ~std::uint64_t{0});
        killer.join();
        CHECK(victim.wait() == -SIGKILL);
        REQUIRE(status == Status::peer_dead);
        REQUIRE_FALSE(round.tally->wrong);
        // The commit that reported the death is not in the count.
        REQUIRE(round.tally->received <= round.tally->committed + 1);
        messages += round.tally->received;
    }
    CHECK(messages > 100);
    CHECK(Held{} == before);
}

TEST_CASE("a producer that closes at any moment loses nothing that it committed, and its close is told") {
    const Held before;
    for (int number = 0; number < rounds(); ++number) {
        Round round(static_cast<std::uint64_t>(number));
        INFO("round " << number);
        Child closer([&] {
            const auto bus = round.open(round.victim_listens);
            return produce(*bus, *round.tally, round.random, 1 + round.random.below(3000)) == Status::ok ? 0 : 1;
        });
        const auto bus = round.open(!round.victim_listens);
        Random random(static_cast<std::uint64_t>(number));
        REQUIRE(consume(*bus, *round.tally, random) == Status::peer_closed);
        REQUIRE(closer.wait() == 0);
        REQUIRE(round.tally->received == round.tally->committed);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a consumer that closes at any moment ends its producer's work with a close") {
    const Held before;
    for (int number = 0; number < rounds(); ++number) {
        Round round(static_cast<std::uint64_t>(number));
        INFO("round " << number);
        Child closer([&] {
            const auto bus = round.open(round.victim_listens);
            for (std::uint64_t left = round.random.below(1000), sequence = 1; left > 0; --left, ++sequence) {
                Frame frame{};
                TACHYON_CHILD_CHECK(receive(*bus, frame, kNever) == Status::ok);
                TACHYON_CHILD_CHECK(check_message(frame, sequence) == nullptr);
                TACHYON_CHILD_CHECK(bus->release(frame) == Status::ok);
            }
            return 0;
        });
        const auto bus = round.open(!round.victim_listens);
        Random random(static_cast<std::uint64_t>(number));
        REQUIRE(produce(*bus, *round.tally, random, ~std::uint64_t{0}) == Status::peer_closed);
        REQUIRE(closer.wait() == 0);
    }
    CHECK(Held{} == before);
}

TEST_CASE("both killed at once leave no file behind") {
    for (int number = 0; number < 5; ++number) {
        const Round round(static_cast<std::uint64_t>(number));
        const auto ends = [&](bool listens) {
            return [&round, listens] {
                const auto bus = round.open(listens);
                ++round.tally->committed;
                ::pause();
                return 0;
            };
        };
        Child first(ends(true)), second(ends(false));
        REQUIRE(eventually([&] { return round.tally->committed == 2; }));
        first.kill();
        second.kill();
        CHECK(first.wait() == -SIGKILL);
        CHECK(second.wait() == -SIGKILL);
        CHECK(round.folder.entries().empty());
    }
}

#endif
