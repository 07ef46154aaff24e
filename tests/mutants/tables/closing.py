"""Ends: close, abort, finish, deaths, signals, and what stays mapped."""

from table import Mutant as M

BUS_WAIT = "cxx/src/bus_wait.cpp"
BUS_HPP = "cxx/include/tachyon/bus.hpp"
BUS_HANDLE_HPP = "cxx/include/tachyon/host/bus_handle.hpp"
GATE = "cxx/include/tachyon/host/gate.hpp"
WAITING_HPP = "cxx/include/tachyon/port/waiting.hpp"
BUS_CPP = "cxx/src/bus.cpp"
BUS_HANDLE_CPP = "cxx/src/host/bus_handle.cpp"
LISTENER = "cxx/src/link/listener.cpp"
PEER = "cxx/src/platform/peer_linux.cpp"
BUS_PXI = "tachyon/_bus.pxi"
DISPATCHER = "tachyon/_dispatcher.py"
GUARDS = "tachyon/_guards.pxi"
HANDLE = "tachyon/_handle.pxi"
OPEN = "tachyon/_open.pxi"
RECEIVING = "tachyon/_receiving.pxi"
STATUS = "tachyon/_status.pxi"
WAITING = "tachyon/_waiting.pxi"

TABLE = {
"leaving by an exception is an abort": [
    M("an exception is an end", HANDLE,
      "return core.End.aborted", "return core.End.closed",
      "test_abort.py::test_a_producer_that_leaves_in_the_middle_is_no_end_of_stream[ValueError] "
      "test_abort.py::test_a_consumer_that_leaves_in_the_middle_is_told_to_the_producer"),
    M("abort() is a close", BUS_PXI,
      "handle_of(<Bus?>self).close(core.End.aborted)", "handle_of(<Bus?>self).close(core.End.closed)",
      "test_abort.py::test_a_producer_that_leaves_in_the_middle_is_no_end_of_stream[abort]"),
    M("the last word counts, not the first", GATE,
      "if (!must_close()) closing_.store(how, std::memory_order_release);",
      "closing_.store(how, std::memory_order_release);",
      "test_abort.py::test_the_first_word_counts_though_another_thread_is_inside[close-abort-closed]",
      ((BUS_CPP, "if (closed_->load(std::memory_order_relaxed) == static_cast<std::uint32_t>(End::open)) {", "{"),)),
],
"wait_read and finish": [
    M("a copy is told of at the next look only", BUS_HPP,
      "if (!frame_seen()) hand_back();", "",
      "test_wait_read.py::test_a_consumer_that_takes_the_last_message_and_never_looks_again_has_read_it[recv]"),
    M("a consumer that closed is as good as one that read", BUS_WAIT,
      "return producer_.all_read() ? Status::ok : gone;", "return Status::ok;",
      "test_wait_read.py::test_a_consumer_that_left_something_unread_is_told"),
    M("finish does not end the stream", BUS_CPP,
      "say_end(End::closed);", "",
      "test_wait_read.py::test_finish_ends_the_stream_and_returns_when_the_consumer_has_left_in_good_order"),
],
"the mapping lives as long as any view": [
    M("close unmaps under a view", GATE,
      "guards_.load(std::memory_order_acquire) == 0 &&", "",
      "test_views.py::test_a_view_may_outlive_guard_and_bus "
      "test_views.py::test_the_mapping_lives_as_long_as_a_view"),
    M("the mapping stays when the last view has gone", BUS_HANDLE_CPP,
      "if (gate_.must_close()) finish_close();", "",
      "test_views.py::test_the_mapping_goes_with_the_last_view_of_a_closed_bus"),
    M("the collector takes a batch's bus first", GUARDS,
      "@cython.no_gc_clear\ncdef class RxBatchGuard(_Held):", "cdef class RxBatchGuard(_Held):",
      "test_views.py::test_a_guard_in_a_reference_cycle_is_collected_without_a_crash[batch iterator]"),
],
"close, whoever is inside": [
    M("close waits for whoever is inside", BUS_HANDLE_CPP + "::close",
      "finish_close();", "while (!gate_.is_closed()) finish_close();",
      "test_threads.py::test_close_from_another_thread_ends_every_wait[recv-sleeping]"),
    M("close only interrupts whoever is inside", BUS_HANDLE_CPP + "::close",
      "gate_.ask_to_close(static_cast<int>(how));",
      "if (!gate_.is_inside(Gate::User::nobody)) return bus_->request_close();\ngate_.ask_to_close(static_cast<int>(how));",
      "test_threads.py::test_close_from_another_thread_ends_every_wait"),
    M("nobody finishes a close", BUS_HANDLE_HPP,
      "if (gate_.leave()) [[unlikely]]\nfinish_close();", "(void)gate_.leave();",
      "test_threads.py::test_close_from_another_thread_ends_every_wait"),
    M("a second thread gets in", GATE,
      "inside_.load(std::memory_order_acquire) != 0 || held() != 0 ||", "held() != 0 ||",
      "test_threads.py::test_a_second_thread_is_refused_and_the_first_goes_on"),
    M("other threads cannot run during a wait", WAITING,
      "host = {tachyon_unlock, tachyon_lock, &state};", "",
      "test_signals.py::test_a_signal_in_a_process_whose_main_thread_is_elsewhere_ends_nothing"),
    M("a forked child hides its parent's death", PEER,
      "{process, POLLIN, 0}", "{-1, POLLIN, 0}",
      "test_fork.py::test_a_parents_death_is_seen_though_its_forked_child_lives[producer-_Fork] "
      "test_fork.py::test_a_parents_death_is_seen_though_its_forked_child_lives[consumer-_Fork]"),
],
"what is told of the other side": [
    M("a corrupt header is a mere death", STATUS,
      'PeerDeadError, "corrupt",', "PeerDeadError, None,",
      "test_corrupt_peer.py::test_a_frame_that_cannot_be_is_refused[recv-too long] "
      "test_corrupt_peer.py::test_a_read_position_that_cannot_be_is_refused"),
    M("a receive does not say that the peer has closed", RECEIVING + "::expect_message",
      "raise_status(handle, Status.peer_closed)", 'raise BusEmptyError("nothing")',
      "test_peer_end.py::test_then_an_explicit_receive_says_closed"),
    M("a death is told by a send whose message was read", BUS_CPP,
      "&& !producer_.all_read() ? Status::peer_dead", "? Status::peer_dead",
      "test_peer_end.py::test_a_message_that_was_read_was_sent_even_if_the_consumer_then_dies"),
    M("a death is not told while a producer waits for room", BUS_CPP,
      "const Status status = check_consumer();\nreturn status == Status::ok ? Status::full : status;",
      "return Status::full;", "test_peer_death.py::test_a_producer_that_waits_for_room_is_told_of_the_death"),
],
"signals": [
    M("Ctrl-C ends no wait", WAITING,
      "const bool raised = PyErr_CheckSignals() != 0;", "const bool raised = false;",
      "test_signals.py::test_ctrl_c_ends_it[recv] "
      "test_signals.py::test_ctrl_c_ends_it[send] "
      "test_signals.py::test_ctrl_c_ends_it[listen]"),
    M("other signals end a receive", WAITING_HPP,
      "if (slept != Status::ok && slept != nothing && slept != Status::interrupted) return slept;",
      "if (slept != Status::ok && slept != nothing) return slept;",
      "test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[recv]"),
    M("other signals end listen", LISTENER,
      "events_.wait({&tag, 1}, poll_timeout(std::min(deadline, next_deadline())));",
      "if (events_.wait({&tag, 1}, poll_timeout(std::min(deadline, next_deadline()))) < 0) throw_interrupted();",
      "test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[listen]"),
],
"code of the caller's in the middle of a call": [
    M("set-up swallows the end of its thread", OPEN,
      "} catch (const std::exception& error) {\noutcome.what = error.what();",
      '} catch (...) {\n    outcome.what = "unknown";',
      "test_reentrancy.py::test_a_daemon_thread_in_set_up_does_not_abort_the_exit"),
    M("a caller that goes before its answer", DISPATCHER,
      "except PeerClosedError:\nreturn", "except PeerClosedError:\n    raise",
      "test_reentrancy.py::test_a_caller_that_goes_before_its_answer_ends_the_loop_quietly"),
],
}
