// Everything at once.
#include <deque>
#include <utility>

#include "both_ends.hpp"

using namespace tachyon;
using namespace tachyon::test;

// The ring against a plain queue, one step of either side at a time, so that every rule is looked at after every step.
TEST_CASE("any order of steps keeps messages, order and the invariants of the ring") {
    Random random(13);
    const std::uint64_t until = in_ms(long_form() ? 120'000 : 3000);
    std::uint64_t messages = 0;
    do {
        const std::uint64_t capacity = std::uint64_t{64} << random.below(7), max = max_message_size(capacity);
        const std::uint64_t bulk = random.one_in(3) ? kBulk : 2 * kLine << random.below(3);
        Both both(capacity, random.one_in(2) ? Barrier::locked : Barrier::membarrier, bulk);
        std::deque<std::pair<std::uint64_t, std::uint64_t>> sent;  // size, sequence; oldest first, not yet peeked
        std::deque<std::pair<std::uint64_t, std::uint64_t>> peeked;
        std::deque<Frame> held;
        std::uint64_t sequence = 0, stuck = 0;
        for (int step = 0; step < 3000; ++step) {
            const std::uint64_t written = both.producer.write_position();
            REQUIRE(both.published() <= both.consumer.freed_position());
            REQUIRE(both.consumer.freed_position() <= written);
            REQUIRE(written - both.published() <= capacity);
            // The invariant that everything rests on, unless the word is the oldest frame's.
            if (written - both.consumer.freed_position() < capacity) REQUIRE(both.ring.word(written).load() == 0);
            REQUIRE(both.unknown_dirt() == 0);
            switch (random.below(8)) {
                case 0:
                case 1:
                case 2: {
                    const std::uint64_t size = pick_size(random, max),
                                        claim = random.one_in(3) ? size + random.below(max - size + 1) : size;
                    const bool could = both.producer.can_advance(claim);
                    std::uint8_t* const payload = both.producer.try_claim(claim);
                    REQUIRE(could == (payload != nullptr || both.producer.write_position() != written));
                    if (payload == nullptr) break;
                    write_message(payload, size, both.producer.claimed() - kFrameHeader, sequence + 1);
                    if (random.one_in(5)) {
                        both.producer.abort();
                        break;
                    }
                    ++sequence;
                    both.producer.commit(static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(sequence),
                                         sequence);
                    sent.emplace_back(size, sequence);
                    break;
                }
                case 3: {
                    const std::uint64_t size = pick_size(random, max);
                    if (both.send(size, sequence + 1)) sent.emplace_back(size, ++sequence);
                    break;
                }
                case 4:
                case 5: {
                    Frame frame;
                    const Status status = both.consumer.peek(frame);
                    REQUIRE(status == (sent.empty() ? Status::empty : Status::ok));
                    if (status == Status::empty) {
                        REQUIRE(both.published() == both.consumer.freed_position());
                        break;
                    }
                    REQUIRE(frame.size == sent.front().first);
                    REQUIRE(check_message(frame, sent.front().second) == nullptr);
                    held.push_back(frame);
                    peeked.push_back(sent.front());
                    sent.pop_front();
                    break;
                }
                case 6: {
                    const std::uint64_t count = random.below(held.size() + 1);
                    for (std::uint64_t i = 0; i < count; ++i) {
                        REQUIRE(check_message(held.front(), peeked.front().second) == nullptr);  // still whole
                        both.consumer.release(held.front());
                        held.pop_front();
                        peeked.pop_front();
                        ++messages;
                    }
                    if (count > 0) REQUIRE(both.consumer.freed_position() - both.published() < capacity / 8);
                    break;
                }
                default:
                    if (held.empty() || !random.one_in(3)) break;
                    both.consumer.put_back(held.back());
                    sent.push_front(peeked.back());
                    held.pop_back();
                    peeked.pop_back();
            }
            REQUIRE(both.consumer.held() == held.size());
        }
        // With everything given back, the largest message finds its way.
        while (!held.empty()) {
            both.consumer.release(held.front());
            held.pop_front();
        }
        while (!sent.empty()) {
            REQUIRE(both.take(sent.front().first, sent.front().second) == "ok");
            sent.pop_front();
        }
        REQUIRE(both.peek() == Status::empty);
        REQUIRE(both.unknown_dirt() == 0);
        while (!both.send(max, 1)) {
            REQUIRE(++stuck < 3);
            REQUIRE(both.peek() == Status::empty);
        }
        REQUIRE(both.ring.fence_intact());
    } while (now_ns() < until);
    CHECK(messages > 1000);
}
