"""What is sent from Python, how a claim ends, and who decides the direction."""

from table import Mutant as M

BATCH = "cxx/include/tachyon/batch.hpp"
WAITING = "cxx/include/tachyon/port/waiting.hpp"
OUTLET = "cxx/src/port/outlet.cpp"
BUS_PXI = "tachyon/_bus.pxi"
GUARDS = "tachyon/_guards.pxi"
SENDING = "tachyon/_sending.pxi"

TABLE = {
"send and send_many": [
    M("addresses are sent", SENDING,
      "if has_pointers(payload.view.format):", "if False:",
      "test_pointers.py::test_pointers_are_not_sent "
      "test_pointers.py::test_an_answer_of_pointers_is_a_failed_call"),
    M("a large one loses its end", OUTLET,
      "std::memcpy(to + head.size(), data.data(), data.size());",
      "std::memcpy(to + head.size(), data.data(), data.size() - 1);", "test_send.py::test_every_size_arrives_whole"),
    M("a send whose time is over says nothing", SENDING,
      "if status != Status.ok and (status != Status.full or deadline != 0):",
      "if status != Status.ok and status != Status.full:", "test_timeouts.py::test_sending_gives_up_after_it"),
    M("a timeout never ends", WAITING,
      "if (status == nothing && now_ns() >= waiting.deadline && !wait.unfinished()) break;", "",
      "test_timeouts.py::test_sending_gives_up_after_it "
      "test_timeouts.py::test_receiving_gives_up_after_it"),
    M("send_many wakes nobody", BATCH,
      "~Batch() { bus_.wake_consumer(); }", "~Batch() {}",
      "test_send_many.py::test_send_many_wakes_a_sleeping_consumer_once"),
    M("send_many wakes nobody before it waits for room", BATCH,
      "if (status == Status::full) bus_.wake_consumer();", "",
      "test_send_many.py::test_send_many_wakes_a_sleeping_consumer_before_it_waits_for_room"),
    M("send_many's timeout is for each item", BUS_PXI,
      "item_type, deadline)\nsent += 1", "item_type, deadline_after(timeout))\nsent += 1",
      "test_timeouts.py::test_one_timeout_is_for_all_of_send_many"),
    M("send_many wakes for each item", BUS_PXI,
      "send_item(&way, data_of_item(item, &item_type), item_type, deadline)",
      "send_message(way.handle, data_of_item(item, &item_type), item_type, deadline)\nif sent % 10 == 9:\n    os.sched_yield()",
      "test_send_many.py::test_send_many_wakes_a_sleeping_consumer_once"),
],
"a claim is sent, or given back": [
    M("actual_size is ignored", GUARDS,
      "commit(<uint32_t>self._actual_size, self._type_id)", "commit(<uint32_t>self._size, self._type_id)",
      "test_zero_copy.py::test_actual_size_starts_at_the_size_and_cuts_the_message"),
    M("exit publishes nothing", GUARDS,
      "if not send:\nreturn self._outlet().abort()", "if True:\n    return self._outlet().abort()",
      "test_zero_copy.py::test_the_published_example"),
    M("an exception publishes too", GUARDS,
      "self._leave(exc_type is None)", "self._leave(True)",
      "test_zero_copy.py::test_an_exception_gives_the_frame_back"),
    M("an exception keeps the frame", GUARDS,
      "return self._outlet().abort()", "return Status.ok",
      "test_zero_copy.py::test_an_exception_gives_the_frame_back "
      "test_zero_copy.py::test_a_guard_that_is_dropped_without_a_block_gives_the_frame_back"),
    M("a guard that is dropped keeps the frame", GUARDS,
      "def __dealloc__(self):\nif self._open:", "def __dealloc__(self):\n    if False:",
      "test_zero_copy.py::test_a_guard_that_is_dropped_without_a_block_gives_the_frame_back"),
    M("a send that fails at exit is not told", GUARDS,
      "if send and status != Status.ok and not self._readonly:", "if False:",
      "test_guards.py::test_closing_the_bus_within_a_block_loses_what_was_to_be_sent_and_says_so"),
    M("a claim does not wait for room", SENDING + "::claim_for",
      "waiting.deadline = deadline", "waiting.deadline = min(deadline, 1)",
      "test_zero_copy.py::test_a_claim_waits_for_room"),
],
}
