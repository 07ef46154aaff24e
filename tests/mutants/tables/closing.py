"""Ends: close, abort, finish, deaths, signals, and what stays mapped."""

from table import Mutant as M

BUS_HPP = "cxx/include/tachyon/bus.hpp"
BUS_CPP = "cxx/src/bus.cpp"
CONNECTION_CPP = "cxx/src/link/connection.cpp"
LISTENER_CPP = "cxx/src/link/listener.cpp"
PLATFORM_LINUX_CPP = "cxx/src/platform_linux.cpp"
DISPATCHER = "tachyon/_dispatcher.py"
GUARDS = "tachyon/_guards.pxi"
IN_USE = "tachyon/_in_use.pxi"
OPEN = "tachyon/_open.pxi"
RECEIVING = "tachyon/_receiving.pxi"
RPC = "tachyon/_rpc.pxi"
SENDING = "tachyon/_sending.pxi"
SUPPORT = "tachyon/_support.pxi"
PYX = "tachyon/_tachyon.pyx"

TABLE = {
"leaving by an exception is an abort": [
    M("an exception is an end", IN_USE,
      "return core.End.aborted", "return core.End.closed",
      "test_abort.py::test_a_producer_that_leaves_in_the_middle_is_no_end_of_stream[ValueError] "
      "test_abort.py::test_a_consumer_that_leaves_in_the_middle_is_told_to_the_producer"),
    M("abort() is a close", PYX,
      "end(<Bus?>self, core.End.aborted)", "end(<Bus?>self, core.End.closed)",
      "test_abort.py::test_a_producer_that_leaves_in_the_middle_is_no_end_of_stream[abort]"),
    M("the last word counts, not the first", IN_USE,
      "if not self._closing:", "if True:",
      "test_abort.py::test_the_first_word_counts_though_another_thread_is_inside[close-abort-closed]",
      ((BUS_CPP, "if (closed_->load(std::memory_order_relaxed) == static_cast<std::uint32_t>(End::open)) {", "{"),)),
],
"wait_read and finish": [
    M("a copy is told of at the next look only", BUS_HPP,
      "if (!frame_seen()) hand_back();", "",
      "test_wait_read.py::test_a_consumer_that_takes_the_last_message_and_never_looks_again_has_read_it[recv]"),
    M("a consumer that closed is as good as one that read", BUS_CPP,
      "return producer_.all_read() ? Status::ok : gone;", "return Status::ok;",
      "test_wait_read.py::test_a_consumer_that_left_something_unread_is_told"),
    M("finish does not end the stream", BUS_CPP,
      "say_end(End::closed);", "",
      "test_wait_read.py::test_finish_ends_the_stream_and_returns_when_the_consumer_has_left_in_good_order"),
],
"the mapping lives as long as any view": [
    M("close unmaps under a view", IN_USE,
      "if self._guards == 0 and tachyon_look(&self._closed) == 2:", "if tachyon_look(&self._closed) == 2:",
      "test_views.py::test_a_view_may_outlive_guard_and_bus "
      "test_views.py::test_the_mapping_lives_as_long_as_a_view"),
    M("the mapping stays when the last view has gone", IN_USE,
      "if self._closing and tachyon_enter(&self._in_use):\nleave(self)", "",
      "test_views.py::test_the_mapping_goes_with_the_last_view_of_a_closed_bus"),
    M("the collector takes a batch's bus first", GUARDS,
      "@cython.no_gc_clear\ncdef class RxBatchGuard:", "cdef class RxBatchGuard:",
      "test_views.py::test_a_guard_in_a_reference_cycle_is_collected_without_a_crash[batch iterator]"),
],
"close, whoever is inside": [
    M("close waits for whoever is inside", IN_USE,
      "if not self._closing:",
      "while not tachyon_enter(&self._in_use):\n    with nogil:\n        pass\ntachyon_leave(&self._in_use)\nif not self._closing:",
      "test_threads.py::test_close_from_another_thread_ends_every_wait[recv-sleeping]"),
    M("close only interrupts whoever is inside", IN_USE,
      "if not self._closing:",
      "if self._in_use:\n    tachyon_core(self._core).request_close()\n    return 0\nif not self._closing:",
      "test_threads.py::test_close_from_another_thread_ends_every_wait"),
    M("nobody finishes a close", IN_USE,
      "if self._closing:\nfinish_close(self)", "", "test_threads.py::test_close_from_another_thread_ends_every_wait"),
    M("a second thread gets in", IN_USE,
      "if (__atomic_load_n(flag, __ATOMIC_ACQUIRE) != 0) return 0;", "",
      "test_threads.py::test_a_second_thread_is_refused_and_the_first_goes_on"),
    M("other threads cannot run during a wait", RECEIVING,
      "with nogil:\nstatus = bus.wait_beside(deadline)", "status = bus.wait_beside(deadline)",
      "test_signals.py::test_a_signal_in_a_process_whose_main_thread_is_elsewhere_ends_nothing"),
    M("a forked child hides its parent's death", PLATFORM_LINUX_CPP,
      "{process, POLLIN, 0}", "{-1, POLLIN, 0}",
      "test_fork.py::test_a_parents_death_is_seen_though_its_forked_child_lives[producer-_Fork] "
      "test_fork.py::test_a_parents_death_is_seen_though_its_forked_child_lives[consumer-_Fork]"),
],
"what is told of the other side": [
    M("a corrupt header is a mere death", SUPPORT,
      'error.reason = "corrupt"', "",
      "test_corrupt_peer.py::test_a_frame_that_cannot_be_is_refused[recv-too long] "
      "test_corrupt_peer.py::test_a_read_position_that_cannot_be_is_refused"),
    M("a receive does not say that the peer has closed", RECEIVING,
      "raise_status(self, Status.peer_closed, 0)", 'raise BusEmptyError("nothing")',
      "test_peer_end.py::test_then_an_explicit_receive_says_closed"),
    M("a death is told by a send whose message was read", BUS_CPP,
      "&& !producer_.all_read() ? Status::peer_dead", "? Status::peer_dead",
      "test_peer_end.py::test_a_message_that_was_read_was_sent_even_if_the_consumer_then_dies"),
    M("a death is not told while a producer waits for room", BUS_CPP,
      "const Status status = check_consumer();\nreturn status == Status::ok ? Status::full : status;",
      "return Status::full;", "test_peer_death.py::test_a_producer_that_waits_for_room_is_told_of_the_death"),
],
"signals": [
    M("Ctrl-C does not end a receive", RECEIVING,
      "PyErr_CheckSignals()", "",
      "test_signals.py::test_ctrl_c_ends_it[recv] "
      "test_signals.py::test_ctrl_c_ends_a_polling_wait[recv]"),
    M("Ctrl-C does not end a send", SENDING,
      "status = bus.wait_writable(size, until)\nPyErr_CheckSignals()", "status = bus.wait_writable(size, until)",
      "test_signals.py::test_ctrl_c_ends_it[send] "
      "test_signals.py::test_ctrl_c_ends_a_polling_wait[send]"),
    M("Ctrl-C ends neither listen nor connect", OPEN,
      "return True", "return False",
      "test_signals.py::test_ctrl_c_ends_it[listen] "
      "test_signals.py::test_ctrl_c_ends_it[connect]"),
    M("other signals end a receive", RECEIVING,
      "if status == Status.ok or status == Status.empty or status == Status.interrupted:",
      "if status == Status.ok or status == Status.empty:",
      "test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[recv]"),
    M("other signals end listen", LISTENER_CPP,
      "events_.wait({&tag, 1}, poll_timeout(std::min(deadline, next_deadline())));",
      "if (events_.wait({&tag, 1}, poll_timeout(std::min(deadline, next_deadline()))) < 0) throw_interrupted();",
      "test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[listen]"),
    M("a handler may use the bus that it interrupted", IN_USE,
      "self._core == NULL or self._held != 0 or not tachyon_enter(&self._in_use):",
      "self._core == NULL or self._held != 0 or tachyon_enter(&self._in_use) > 1:",
      "test_signals.py::test_a_handler_that_uses_the_bus_it_interrupted_is_refused"),
],
"code of the caller's in the middle of a call": [
    M("a truth that raises leaves the bus busy", PYX,
      "cdef cpp_bool wanted = bool(pure_spin)  # may raise: before enter\ncheck_open(self)\nenter(self)",
      "check_open(self)\nenter(self)\ncdef cpp_bool wanted = bool(pure_spin)",
      "test_reentrancy.py::test_a_polling_mode_whose_truth_raises_leaves_the_bus_usable"),
    M("set-up swallows the end of its thread", OPEN,
      "} catch (const std::exception& error) {\noutcome.what = error.what();",
      '} catch (...) {\n    outcome.what = "unknown";',
      "test_reentrancy.py::test_a_daemon_thread_in_set_up_does_not_abort_the_exit"),
    M("an id is chosen before the arguments are looked at", RPC,
      "origin.correlation_id = 0  # begin_origin gives it one", "origin.correlation_id = rpc_caller(self).next_id()",
      "test_reentrancy.py::test_a_timeout_that_calls_gets_an_id_of_its_own",
      ((SENDING, "origin.correlation_id = origin.caller.next_id()", "pass"),)),
    M("a caller that goes before its answer", DISPATCHER,
      "except PeerClosedError:\nreturn", "except PeerClosedError:\n    raise",
      "test_reentrancy.py::test_a_caller_that_goes_before_its_answer_ends_the_loop_quietly"),
],
}
