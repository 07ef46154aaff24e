// Everything at once, at full speed, on two threads and on two processes: random sizes and capacities, held batches, shrunk and
// aborted claims, frames put back, parking on both sides, pauses; every message checked, in order, none missing.

#include <deque>

#include "catch.hpp"
#include "message.hpp"
#include "support.hpp"
#include "tachyon/ring/ring.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

// Longer than any scheduler keeps a process waiting: a sleep of this length over work that lies there is a lost wake.
constexpr std::uint64_t kLostWake = 5'000 * kMillisecond;

// What both sides share beside the ring. Plain counters are read after the end only.
struct Course {
    std::atomic<bool> stop{false};                        // no more new messages
    std::atomic<bool> failed{false};                      // give up: the other side has seen something wrong
    std::atomic<std::uint64_t> total{~std::uint64_t{0}};  // how many messages there are, once the producer knows
    std::uint64_t producer_parks = 0, consumer_parks = 0, lost_wakes = 0, most_held = 0, aborted = 0, shrunk = 0;
    std::uint64_t received = 0;
    std::uint64_t write_position = 0, dirty_from = 0, dirty_to = 0;  // of the producer, at its end
    char what[200] = "";

    void fail(const char* why, std::uint64_t sequence, std::uint64_t capacity) {
        if (failed.exchange(true)) return;
        std::snprintf(what, sizeof what, "%s at message %llu, capacity %llu", why,
                      static_cast<unsigned long long>(sequence), static_cast<unsigned long long>(capacity));
    }
};

void linger(Random& random) {
    const std::uint64_t choice = random.below(4096);
    if (choice < 2) return sleep_us(30);
    for (std::uint64_t n = choice < 40 ? random.below(300) : choice < 400 ? random.below(20) : 0; n > 0; --n)
        cpu_relax();
}

template <class HasWork>
void wait_for_work(std::atomic<std::uint32_t>& parked, Barrier barrier, Random& random, std::uint64_t& parks,
                   Course& course, HasWork has_work) {
    const auto look = [&] { return has_work() || course.failed.load(std::memory_order_relaxed); };
    for (std::uint64_t looks = random.below(300); looks > 0; --looks, cpu_relax()) {
        if (look()) return;
    }
    ++parks;
    if (park(parked, barrier, kLostWake, look) == Parked::slice_over && has_work()) {
        ++course.lost_wakes;
        course.fail("lost wake", parks, 0);
    }
}

void produce(const RingMemory& memory, Course& course, std::uint64_t seed, std::uint64_t until) {
    Producer producer(memory);
    Random random(seed);
    const std::uint64_t max = max_message_size(memory.capacity);
    std::uint64_t sequence = 0;
    for (bool last = false; !last;) {
        last = course.failed.load(std::memory_order_relaxed) || (sequence % 64 == 63 && now_ns() > until);
        const std::uint64_t size = pick_size(random, max);
        const std::uint64_t claim = random.one_in(5) ? size + random.below(max - size + 1) : size;
        if (last) course.total.store(sequence + 1, std::memory_order_relaxed);  // published by the last commit
        std::uint8_t* payload = nullptr;
        while ((payload = producer.try_claim(claim)) == nullptr) {
            if (producer.corrupt()) return course.fail("read_position", sequence, memory.capacity);
            if (course.failed.load(std::memory_order_relaxed)) return;
            wait_for_work(memory.header->producer_parked, memory.barrier, random, course.producer_parks, course,
                          [&] { return producer.can_advance(claim); });
        }
        write_message(payload, size, producer.claimed() - kFrameHeader, sequence + 1);
        if (!last && random.one_in(16)) {
            producer.abort();
            ++course.aborted;
            continue;
        }
        course.shrunk += frame_size(size) != frame_size(claim);
        ++sequence;
        const auto type_id = static_cast<std::uint32_t>(sequence);
        if (!last && random.one_in(8)) {
            producer.commit<Wake::later>(static_cast<std::uint32_t>(size), type_id, sequence);
            linger(random);
            producer.wake_consumer();
        } else {
            producer.commit(static_cast<std::uint32_t>(size), type_id, sequence);
        }
        linger(random);
    }
    course.write_position = producer.write_position();
    course.dirty_from = producer.dirty_from();
    course.dirty_to = producer.dirty_to();
}

void consume(const RingMemory& memory, Course& course, std::uint64_t seed) {
    Consumer consumer(memory);
    Random random(seed);
    std::uint64_t peeked = 0, received = 0;
    std::deque<Frame> held;
    while (received != course.total.load(std::memory_order_relaxed)) {
        const std::uint64_t batch = random.below(4) != 0 ? 1
                                    : random.one_in(3)   ? ~std::uint64_t{0}
                                                         : 1 + random.below(16);
        Frame frame;
        Status status = Status::ok;
        while (held.size() < batch && (status = consumer.peek(frame)) == Status::ok) {
            if (const char* const wrong = check_message(frame, ++peeked))
                return course.fail(wrong, peeked, memory.capacity);
            held.push_back(frame);
        }
        if (status == Status::corrupt) return course.fail("corrupt", peeked + 1, memory.capacity);
        if (held.empty()) {
            if (course.failed.load(std::memory_order_relaxed)) return;
            wait_for_work(memory.header->consumer_parked, memory.barrier, random, course.consumer_parks, course,
                          [&] { return consumer.has_frame(); });
            continue;
        }
        course.most_held = std::max<std::uint64_t>(course.most_held, held.size());
        if (random.one_in(16)) {
            consumer.put_back(held.back());
            held.pop_back();
            --peeked;
        }
        linger(random);
        while (!held.empty()) {
            ++received;
            // Again: what is held must not change while it is.
            if (const char* const wrong = check_message(held.front(), received))
                return course.fail(wrong, received, memory.capacity);
            consumer.release(held.front());
            held.pop_front();
            if (random.one_in(64)) linger(random);
        }
    }
    consumer.hand_back();
    course.received = received;
}

std::uint64_t course_ms() { return long_form() ? 20'000 : 120; }

template <class Run>
void torture(Run run) {
    std::uint64_t messages = 0, parks = 0, aborted = 0, shrunk = 0, most_held = 0, round = 0;
    for (const Barrier barrier : {Barrier::locked, Barrier::membarrier}) {
        for (std::uint64_t capacity = 64; capacity <= 1u << 20; capacity *= 2) {
            const std::uint64_t bulk = round % 3 == 2 ? kBulk : 2 * kLine << round % 3;
            const FencedRing ring(capacity, barrier, bulk);
            const Shared<Course> course;
            run(ring, *course, ++round);
            INFO("capacity " << capacity << (barrier == Barrier::locked ? ", locked" : ", membarrier") << ": "
                             << course->what);
            REQUIRE_FALSE(course->failed);
            REQUIRE(course->lost_wakes == 0);
            REQUIRE(course->received == course->total);
            REQUIRE(ring.dirty_lines(course->write_position, course->dirty_from, course->dirty_to) == 0);
            REQUIRE(ring.fence_intact());
            messages += course->received;
            parks += course->producer_parks + course->consumer_parks;
            aborted += course->aborted;
            shrunk += course->shrunk;
            most_held = std::max(most_held, course->most_held);
        }
    }
    // Otherwise less was tried than the name says.
    CHECK(messages > 1000);
    CHECK(parks > 100);
    CHECK(aborted > 50);
    CHECK(shrunk > 20);
    CHECK(most_held > 3);
    if (long_form())
        WARN(messages << " messages, " << parks << " parks, " << aborted << " aborted, " << shrunk << " shrunk");
}

}  // namespace

TEST_CASE("two threads exchange everything, in order, whatever they do to each other") {
    REQUIRE(register_membarrier());
    torture([](const FencedRing& ring, Course& course, std::uint64_t round) {
        std::thread consumer([&] { consume(ring.memory(), course, 2 * round); });
        produce(ring.memory(), course, 2 * round + 1, in_ms(course_ms()));
        consumer.join();
    });
}

#if !TACHYON_TEST_TSAN
TEST_CASE("two processes exchange everything, in order, whatever they do to each other") {
    REQUIRE(register_membarrier());
    torture([](const FencedRing& ring, Course& course, std::uint64_t round) {
        Child consumer([&] {
            TACHYON_CHILD_CHECK(register_membarrier());
            consume(ring.memory(), course, 2 * round);
            return 0;
        });
        produce(ring.memory(), course, 2 * round + 1, in_ms(course_ms()));
        CHECK(consumer.wait() == 0);
    });
}
#endif
