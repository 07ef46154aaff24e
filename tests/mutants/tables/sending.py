"""What is sent from Python, how a claim ends, and who decides the direction."""

from table import Mutant as M

GUARDS = "tachyon/_guards.pxi"
SENDING = "tachyon/_sending.pxi"
PYX = "tachyon/_tachyon.pyx"

TABLE = {
"send and send_many": [
    M("addresses are sent", SENDING,
      "if has_pointers(view.format):", "if False:",
      "test_pointers.py::test_pointers_are_not_sent "
      "test_pointers.py::test_an_answer_of_pointers_is_a_failed_call"),
    M("a large one loses its end", SENDING,
      "memcpy(payload, data, size)", "memcpy(payload, data, size - 1)", "test_send.py::test_every_size_arrives_whole"),
    M("send gives up silently while the ring is full", SENDING,
      "if not wait:", "if True:",
      "test_send.py::test_send_waits_for_room "
      "test_send.py::test_a_strided_or_large_buffer_waits_for_room_too"),
    M("send's timeout never ends", SENDING,
      "if core.now_ns() >= deadline:\nraise BusFullError(", "if False:\n    raise BusFullError(",
      "test_timeouts.py::test_sending_gives_up_after_it"),
    M("send_many wakes nobody", PYX,
      "if self._core != NULL:\ntachyon_core(self._core).wake_consumer()", "pass",
      "test_send_many.py::test_send_many_wakes_a_sleeping_consumer_once"),
    M("send_many wakes nobody before it waits for room", SENDING,
      "if quietly:\nbus.wake_consumer()", "",
      "test_send_many.py::test_send_many_wakes_a_sleeping_consumer_before_it_waits_for_room"),
    M("send_many's timeout is for each item", PYX,
      "send_until(self, data, item_type, deadline, True, quietly)",
      "send_until(self, data, item_type, deadline_after(timeout), True, quietly)",
      "test_timeouts.py::test_one_timeout_is_for_all_of_send_many"),
    M("send_many wakes for each item", PYX,
      "send_until(self, data, item_type, deadline, True, quietly)",
      "send_until(self, data, item_type, deadline, True, False)\nif sent % 10 == 9:\n    os.sched_yield()",
      "test_send_many.py::test_send_many_wakes_a_sleeping_consumer_once"),
],
"a claim is sent, or given back": [
    M("actual_size is ignored", GUARDS,
      "bus.commit(<uint32_t>self._actual_size,", "bus.commit(<uint32_t>self._size,",
      "test_zero_copy.py::test_actual_size_starts_at_the_size_and_cuts_the_message"),
    M("exit publishes nothing", GUARDS,
      "cdef int status = self._end(exc_type is None)", "cdef int status = self._end(False)",
      "test_zero_copy.py::test_the_published_example"),
    M("an exception publishes too", GUARDS,
      "cdef int status = self._end(exc_type is None)", "cdef int status = self._end(True)",
      "test_zero_copy.py::test_an_exception_gives_the_frame_back"),
    M("an exception keeps the frame", GUARDS,
      "return <int>bus.abort()", "return <int>Status.ok",
      "test_zero_copy.py::test_an_exception_gives_the_frame_back "
      "test_zero_copy.py::test_a_guard_that_is_dropped_without_a_block_gives_the_frame_back"),
    M("a guard that is dropped keeps the frame", GUARDS,
      "if self._open:\nself._end(False)", "pass",
      "test_zero_copy.py::test_a_guard_that_is_dropped_without_a_block_gives_the_frame_back"),
    M("a send that fails at exit is not told", GUARDS,
      "if status != <int>Status.ok and exc_type is None and not self._readonly:", "if False:",
      "test_guards.py::test_closing_the_bus_within_a_block_loses_what_was_to_be_sent_and_says_so"),
    M("a claim does not wait for room", SENDING,
      "await_room(self, claimed, deadline, origin)", "await_room(self, claimed, min(deadline, 1), origin)",
      "test_zero_copy.py::test_a_claim_waits_for_room"),
],
}
