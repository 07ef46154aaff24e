"""What is received in Python, and what guards and their views hold."""

from table import Mutant as M

BUS_WAIT = "cxx/src/bus_wait.cpp"
WAITING = "cxx/include/tachyon/port/waiting.hpp"
BUS_HANDLE = "cxx/src/host/bus_handle.cpp"
BUS_PXI = "tachyon/_bus.pxi"
GUARDS = "tachyon/_guards.pxi"
RECEIVING = "tachyon/_receiving.pxi"

TABLE = {
"one message after the other": [
    M("a message comes twice", RECEIVING,
      "handle.bus().let_go(frame[0])", "handle.bus().put_back(frame[0])",
      "test_recv.py::test_messages_arrive_in_order"),
    M("a frame is never freed", RECEIVING,
      "handle.bus().let_go(frame[0])", "",
      "test_recv.py::test_messages_arrive_in_order "
      "test_capacity.py::test_a_ring_of_one_message_makes_progress"),
    M("a wait ends with its slice", WAITING,
      "if (status == nothing && now_ns() >= waiting.deadline && !wait.unfinished()) break;",
      "if (status == nothing) break;", "test_timeouts.py::test_a_wait_without_end_waits"),
    M("recv_into writes beyond its buffer", BUS_PXI,
      "if frame.size > view.len:", "if frame.size > view.len + 1:",
      "test_recv.py::test_a_buffer_that_is_too_small_leaves_the_message"),
    M("a buffer that is too small loses the message", BUS_PXI + "::recv_into",
      "handle.bus().put_back(frame)", "handle.bus().let_go(frame)",
      "test_recv.py::test_a_buffer_that_is_too_small_leaves_the_message"),
    M("no memory for a message loses it", RECEIVING,
      "handle.bus().put_back(frame[0])", "handle.bus().let_go(frame[0])",
      "test_resources.py::test_a_message_that_there_is_no_memory_for_stays_the_next_one"),
],
"batches": [
    M("leaving a batch keeps its frames", GUARDS,
      "bus.release(self._frames[i])", "pass",
      "test_batch.py::test_leaving_the_block_shows_the_producer_its_room_at_once "
      "test_batch.py::test_a_whole_ring_can_be_held_at_once"),
    M("leaving a batch frees its frames invisibly", GUARDS,
      "bus.hand_back()", "", "test_batch.py::test_leaving_the_block_shows_the_producer_its_room_at_once"),
    M("dropping a batch keeps its frames", GUARDS,
      "def __dealloc__(self):  # not the base's: the frames are gone by then\nif self._open:\nself._end(False)",
      "def __dealloc__(self):\n    pass", "test_batch.py::test_leaving_it_in_another_way_does_so_too[dropped]"),
],
"views and their guards": [
    M("a received frame can be written to", RECEIVING,
      "guard._frame.size, True)", "guard._frame.size, False)", "test_zero_copy.py::test_a_received_frame_is_read_only"),
    M("leaving a guard keeps its frame", GUARDS,
      "self._handle.bus().let_go(self._frame)", "",
      "test_zero_copy.py::test_leaving_the_block_frees_the_frame "
      "test_zero_copy.py::test_a_frame_is_freed_by_an_exception_and_by_being_dropped"),
    M("a received frame goes to those who cannot see that it is read-only", GUARDS,
      "elif self._readonly:", "elif False:",
      "test_dlpack.py::test_a_received_frame_has_no_old_form_which_could_not_say_read_only"),
    M("a frame is freed under its view", GUARDS,
      "if self._views != 0:", "if False:",
      "test_views.py::test_a_view_of_a_received_frame_holds_it "
      "test_views.py::test_a_view_of_a_claim_holds_it_and_then_it_is_given_back_unsent"),
    M("a frame is held for ever after its views", GUARDS,
      "if self._views == 0 and self._leaving and self._open:", "if False:",
      "test_views.py::test_a_view_of_a_received_frame_holds_it"),
    M("a claim is sent when its view goes", GUARDS + "::_view_gone",
      "self._end(False)", "self._end(True)",
      "test_views.py::test_a_view_of_a_claim_holds_it_and_then_it_is_given_back_unsent"),
    M("views of an RxView do not count", GUARDS,
      "self._batch._views += 1", "self._batch._views += 0", "test_views.py::test_a_view_of_a_batch_holds_all_of_it"),
    M("a tensor does not count", GUARDS + "::_capsule",
      "self._view_made()", "",
      "test_views.py::test_a_view_of_a_received_frame_holds_it[dlpack] "
      "test_dlpack.py::test_a_capsule_that_nobody_took_is_a_view_until_it_is_dropped"),
    M("a tensor does not keep its guard", GUARDS,
      "Py_INCREF(self)", "", "test_dlpack.py::test_a_tensor_keeps_guard_bus_and_memory"),
],
"several received guards at once": [
    M("the oldest frame is taken for a new one", BUS_WAIT,
      "blocked_.store(blocked, std::memory_order_relaxed);", "",
      "test_several_guards.py::test_waiting_with_the_whole_ring_in_hand_is_a_sleep"),
    M("a ring is lent beside an open guard", BUS_HANDLE,
      "if (gate_.guards() != 0) {", "if (false) {", "test_libtachyon.py::test_a_guard_is_in_the_way"),
],
}
