"""Parking, waking, memory order, and waiting for many."""

from table import Mutant as M

BUS_WAIT = "cxx/src/bus_wait.cpp"
CONSUMER = "cxx/include/tachyon/ring/consumer.hpp"
PRODUCER = "cxx/include/tachyon/ring/producer.hpp"
FUTEX = "cxx/include/tachyon/wait/futex.hpp"
WAIT = "cxx/include/tachyon/wait/wait.hpp"
WAIT_SET = "cxx/src/wait_set.cpp"

TABLE = {
"waking": [
    M("padding wakes nobody", PRODUCER,
      "wake_consumer();  // a lone padding frame has to wake a parked consumer too: nothing else will", "", "cxx/ring"),
    M("a commit wakes nobody", PRODUCER,
      "if constexpr (kWake == Wake::now) wake_consumer();", "", "cxx/ring"),
    M("handing back wakes nobody", CONSUMER,
      "if (wake_if_parked(memory_.header->producer_parked, memory_.barrier, memory_.doorbell)) [[unlikely]]\n++wakes_;",
      "", "cxx/ring"),
    M("the waker does not reset the word", WAIT,
      "const std::uint32_t before = parked.exchange(kAwake, std::memory_order_acq_rel);",
      "const std::uint32_t before = parked.load(std::memory_order_acquire);", "cxx/wait"),
    M("the sleeper does not look again", WAIT,
      "if (!has_work()) {", "{", "cxx/wait"),
    M("the sleeper does not announce itself", WAIT,
      "parked.store(kParkedOnFutex, std::memory_order_relaxed);  // [park-barrier] orders it", "", "cxx/wait"),
    M("the sleeper does not clear the word", WAIT,
      "parked.store(kAwake, std::memory_order_relaxed);  // we look again in any case", "", "cxx/wait"),
    M("the sleeper trusts the barrier", WAIT,
      "barrier == Barrier::locked ? slice : std::min(slice, kStoreDelay)", "slice", "cxx/wait"),
    M("private futexes", FUTEX,
      "FUTEX_WAKE, INT_MAX", "FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX", "cxx/wait"),
    M("only one sleeper is woken", FUTEX,
      "FUTEX_WAKE, INT_MAX", "FUTEX_WAKE, 1", "cxx/wait"),
    M("leaving an undecided wait clears the other's word", BUS_WAIT,
      "segment_.header()->consumer_parked.store(kParkedOnFutex, std::memory_order_relaxed);", "", "cxx/bus"),
],
"spinning": [
    M("a probe is shorter than a wake-up", WAIT,
      "return kMost;", "return kMost / 10;", "cxx/wait"),
    M("spinning is given up for good", WAIT,
      "if (!woken_ || now - last_probe_ < kBetweenProbes) return 0;", "if (now != 0) return 0;", "cxx/wait"),
    M("whoever idles spins", WAIT,
      "if (!woken_ || now", "if (now", "cxx/wait"),
],
"memory order": [
    M("the commit word is stored relaxed", PRODUCER,
      "detail::word_at(start).store(word, std::memory_order_release);",
      "detail::word_at(start).store(word, std::memory_order_relaxed);", "tsan/torture"),
    M("the commit word is loaded relaxed", CONSUMER,
      "detail::word_at(line).load(std::memory_order_acquire);",
      "detail::word_at(line).load(std::memory_order_relaxed);", "tsan/torture"),
    M("read_position is stored relaxed", CONSUMER,
      "read_position.store(freed_, std::memory_order_release);",
      "read_position.store(freed_, std::memory_order_relaxed);", "tsan/torture"),
    M("read_position is loaded relaxed", PRODUCER,
      "read_position.load(std::memory_order_acquire);", "read_position.load(std::memory_order_relaxed);",
      "tsan/torture"),
],
"waiting for many": [
    M("the first members come first", WAIT_SET,
      "const std::size_t count = members_.size();", "const std::size_t count = members_.size();\nnext_ = 0;",
      "cxx/wait_set"),
    M("who is removed takes another's turn", WAIT_SET,
      "if (next_ > index) --next_;", "(void)index;", "cxx/wait_set"),
    M("many sleep unannounced", WAIT_SET,
      "const bool said = member->bus->park_on_socket(member->for_frame);", "const bool said = false;", "cxx/wait_set"),
    M("bytes are not taken from the socket", WAIT_SET + "::look_at_descriptors",
      "connection->hear();", "", "cxx/wait_set"),
    M("a member's hang-up is ignored", WAIT_SET,
      "if (connection == nullptr || connection->hung_up()) {", "if (connection == nullptr) {", "cxx/wait_set"),
    M("many trust the barrier", WAIT_SET,
      "return unheard ? kStoreDelay : kSlice;", "(void)unheard;\nreturn kSlice;", "cxx/wait_set"),
    M("room is not waited for", WAIT_SET,
      "(for_frame ? bus->readable_now() : bus->writable_now(size))", "bus->readable_now()", "cxx/wait_set"),
    M("any room will do", WAIT_SET,
      "bus->writable_now(size))", "bus->writable_now(0))", "cxx/wait_set"),
    M("a descriptor is ready for ever", WAIT_SET,
      "if (member.bus == nullptr) member.ready = false;", "", "cxx/wait_set"),
    M("busy members hide the others", WAIT_SET,
      "if (ticks() - last_look_ > kTicksBetweenChecks) look_at_descriptors(0);", "", "cxx/wait_set"),
    M("a signal is slept through", WAIT_SET,
      "if (look_at_descriptors(milliseconds) < 0) return Status::interrupted;", "look_at_descriptors(milliseconds);",
      "cxx/wait_set"),
    M("a queue that fails is a signal", WAIT_SET,
      "if (error_number != 0 && error_number != EINTR) return look_at_each(timeout);", "", "cxx/wait_set"),
],
}
