"""Calls and replies in Python: dispatcher, server, listeners, command line."""

from table import Mutant as M

RPC_HANDLE_HPP = "cxx/include/tachyon/host/rpc_handle.hpp"
RPC_HPP = "cxx/include/tachyon/rpc.hpp"
RPC_HANDLE_CPP = "cxx/src/host/rpc_handle.cpp"
RPC_CPP = "cxx/src/rpc.cpp"
WAIT_SET = "cxx/src/wait_set.cpp"
DISPATCHER = "tachyon/_dispatcher.py"
EXCHANGE = "tachyon/_exchange.pxi"
LISTENER = "tachyon/_listener.pxi"
LOOPS = "tachyon/_loops.pxi"
OUTBOX = "tachyon/_outbox.py"
RPC = "tachyon/_rpc.pxi"
RPC_PY = "tachyon/_rpc.py"
SERVER = "tachyon/_server.py"
WAITING = "tachyon/_waiting.pxi"
CLI_OPENING = "tachyon/cli/opening.py"
CLI_RPC = "tachyon/cli/rpc.py"
CLI_STREAM = "tachyon/cli/stream.py"

TABLE = {
"calls and replies": [
    M("two full rings are a deadlock", RPC_HANDLE_CPP,
      "if (handle_.closing() || !handle_.enter()) return;", "return;",
      "test_rpc_waiting.py::test_neither_side_hangs_when_both_rings_are_full"),
    M("close closes one ring", RPC_HANDLE_HPP,
      "replies_.close(how);", "", "test_rpc_end.py::test_closing_ends_a_wait_in_another_thread[caller]"),
    M("a call is answered again", RPC_HPP,
      "if (status == Status::ok) replied(id);", "", "test_rpc_refusals.py::test_a_call_is_answered_once[False]"),
    M("a call given up in place was made", RPC_HPP,
      "abort() noexcept override { return calls_.abort(); }",
      "abort() noexcept override {\n    called(next_id());\n    return calls_.abort();\n}",
      "test_rpc.py::test_a_call_in_place_that_is_given_up_was_never_made"),
    M("an answer given up in place was given", RPC_CPP,
      "Status Answer::abort() noexcept { return callee_.replies_.abort(); }",
      "Status Answer::abort() noexcept {\n    callee_.replied(id_);\n    return callee_.replies_.abort();\n}",
      "test_rpc_refusals.py::test_an_answer_in_place_that_is_given_up_can_be_given_again"),
    M("a reply that is there is not found behind many", RPC_CPP,
      "return caller_.unfinished() && caller_.passed() - before_ < caller_.replies_.capacity();", "return false;",
      "test_rpc_waiting.py::test_a_reply_that_is_there_is_found_at_once_whatever_is_before_it"),
    M("a flood of replies keeps a call without an end", RPC_CPP,
      "return caller_.unfinished() && caller_.passed() - before_ < caller_.replies_.capacity();",
      "return caller_.unfinished();",
      "test_rpc_waiting.py::test_a_flood_of_replies_that_nobody_asked_for_stops_neither_the_clock_nor_signals_nor_threads[bus.wait(cid, timeout=0.5)-BusEmptyError]"),
    M("what is not waited for stays in the ring", RPC_CPP + "::try_wait",
      "pass(reply);", "return Status::empty;", "test_rpc.py::test_replies_in_any_order_can_be_waited_for_in_any_order"),
    M("an id never issued is waited for", RPC_CPP,
      "case CallWindow::State::none: return Status::unknown_call;", "case CallWindow::State::none: break;",
      "test_rpc_refusals.py::test_waiting_for_an_id_that_was_never_issued_is_a_value_error"),
    M("a reply can be had again", RPC_CPP + "::try_wait",
      "window_.set(id, CallWindow::State::none);\n--in_flight_;", "--in_flight_;",
      "test_rpc_refusals.py::test_a_reply_can_be_had_once"),
    M("a reply that nobody called for is sent", "tachyon/_calls.pxi::answerable",
      "if id == 0 or not rpc.callee().can_reply(id):", "if False:",
      "test_rpc_refusals.py::test_replying_to_an_id_that_was_never_served_is_a_value_error",
      ((RPC_HPP, "if (!can_reply(id)) return Status::unknown_call;", ""),)),
],
"what the dispatcher answers": [
    M("an error reply is on_response's", EXCHANGE,
      "and frame.type_id != core.kMostReplyType:", ":",
      "test_dispatcher.py::test_an_error_reply_is_raised_and_never_passed_to_on_response"),
    M("an error reply has the call's msg_type", DISPATCHER,
      "bus.reply(guard.correlation_id, answer, MSG_TYPE_ERROR,",
      "bus.reply(guard.correlation_id, answer, guard.type_id,",
      "test_dispatcher.py::test_the_error_reply_is_the_two_bytes_of_the_published_readme"),
    M("details are unpickled", RPC_PY,
      'return bytes(payload[2:]).decode("utf-8", "replace") if len(payload) > 2 else None',
      'import pickle\n\ntry:\n    return str(pickle.loads(payload[2:]))\nexcept Exception:\n    return bytes(payload[2:]).decode("utf-8", "replace") if len(payload) > 2 else None',
      "test_dispatcher.py::test_nothing_that_comes_over_a_bus_is_unpickled"),
    M("a handler that exits leaves its caller waiting", EXCHANGE,
      "except BaseException as error:\nfailure = error", "except Exception as error:\n    failure = error",
      "test_dispatcher.py::test_an_exit_within_a_handler_answers_first_and_then_ends_the_loop"),
    M("None is an answer", EXCHANGE,
      "if answer is None or isinstance(answer, str):",
      'if answer is None:\n    answer = b""\nif isinstance(answer, str):',
      "test_dispatcher.py::test_a_failed_handler_answers_logs_and_goes_on[False-<lambda>-TypeError0] "
      "test_dispatcher.py::test_serve_once_answers_and_then_raises_what_went_wrong[<lambda>-TypeError0]"),
    M("what is no buffer, or too large, is no failure", EXCHANGE,
      "except BaseException as error:  # not a buffer, or too large\nfailure = error",
      "except BaseException as error:\n    raise",
      "test_dispatcher.py::test_a_failed_handler_answers_logs_and_goes_on[False-<lambda>-TypeError2] "
      "test_dispatcher.py::test_a_failed_handler_answers_logs_and_goes_on[False-<lambda>-MessageTooLargeError]"),
    M("a handler that keeps a view of the request is believed", DISPATCHER,
      "if not guard.released:\nraise", "",
      "test_dispatcher.py::test_serve_once_with_a_kept_view_answers_and_raises_a_buffer_error "
      "test_dispatcher.py::test_a_handler_that_keeps_a_view_has_its_caller_answered_and_ends_the_loop"),
],
"the dispatcher's loop": [
    M("a handler's SystemExit does not end the loop", DISPATCHER,
      "if isinstance(failure, SystemExit):\nraise failure", "",
      "test_dispatcher.py::test_an_exit_within_a_handler_answers_first_and_then_ends_the_loop[SystemExit-SystemExit]"),
    M("stop is not seen while no call comes", DISPATCHER,
      "self._serve(bus, STOP_INTERVAL, self._outbox.keep)", "self._serve(bus, None, self._outbox.keep)",
      "test_dispatcher_loop.py::test_stop_from_another_thread_ends_the_loop "
      "test_dispatcher_loop.py::test_stop_from_a_signal_handler_ends_the_loop"),
    M("an answer that a stopped loop left stays unsent", DISPATCHER,
      "self._outbox.deliver(bus, STOP_INTERVAL)", "",
      "test_dispatcher_loop.py::test_stop_ends_serving_though_an_answer_waits_for_room_and_the_next_serving_sends_it"),
    M("an early stop is lost", LOOPS,
      "self._serve_until_stopped(bus)", "self._stopping = False\nself._serve_until_stopped(bus)",
      "test_dispatcher_loop.py::test_a_stop_that_comes_too_early_ends_the_next_loop_only"),
],
"a server and its callers": [
    M("one caller after the other", SERVER,
      "elif (left := self._answer(bus)) is not None:\nfailure = self.dispatcher._finish(bus, left, self._keep)",
      "else:\n    left = None\n    while left is None and bus not in self._outbox:\n        left = self._answer(bus)\n    if left is not None:\n        failure = self.dispatcher._finish(bus, left, self._keep)",
      "test_server.py::test_callers_are_served_in_turn_however_many_calls_one_has_waiting"),
    M("an answer waits for room", LOOPS,
      "self.dispatcher._endpoints, 0, False)", "self.dispatcher._endpoints, 0, True)",
      "test_server_answers.py::test_a_caller_that_does_not_read_its_answers_keeps_only_itself_waiting"),
    M("an answer without room is lost", OUTBOX,
      "self._unsent[bus] = correlation_id, data, msg_type", "",
      "test_server_answers.py::test_a_caller_that_does_not_read_its_answers_keeps_only_itself_waiting"),
    M("an answer that was sent stays", OUTBOX,
      "del self._unsent[bus]", "",
      "test_server_answers.py::test_a_caller_that_does_not_read_its_answers_keeps_only_itself_waiting "
      "test_dispatcher_loop.py::test_stop_ends_serving_though_an_answer_waits_for_room_and_the_next_serving_sends_it"),
    M("an answer is kept that is not its buffer's bytes", OUTBOX,
      "data = view.tobytes()", "data = bytes(answer)",
      "test_server_answers.py::test_an_answer_that_is_kept_is_what_its_buffer_holds_and_one_that_cannot_be_kept_an_error"),
    M("calls go on without room for an answer", SERVER,
      "if bus in self._outbox:", "if False:",
      "test_server_answers.py::test_a_caller_that_does_not_read_its_answers_keeps_only_itself_waiting"),
    M("a caller's death hides behind its forked child", WAIT_SET,
      "if (bus.connection()->process() >= 0) watch(*members_.back(), bus.connection()->process());", "",
      "test_server_callers.py::test_a_callers_death_is_seen_though_its_forked_child_lives[_Fork]"),
    M("a caller that goes with answers unread stays", SERVER,
      "self._outbox.deliver(bus, 0)", "try:\n    self._outbox.deliver(bus, 0)\nexcept PeerDeadError:\n    return",
      "test_server_callers.py::test_a_caller_that_goes_with_answers_unread_is_forgotten"),
    M("a kept view ends it", SERVER,
      'log.error("%s; its caller is cut off", error)\nself._drop(bus)', "raise",
      "test_server_answers.py::test_a_handler_that_keeps_its_request_costs_its_caller_the_connection_and_nobody_else"),
],
"a server's end": [
    M("close tells nobody", SERVER,
      "for bus in list(self._callers):\nself._drop(bus)", "",
      "test_server_stop.py::test_close_from_another_thread_ends_serving_and_tells_every_caller"),
    M("the first Ctrl-C interrupts whatever runs", LOOPS,
      "self._interrupted = False", "self._interrupted = True",
      "test_interrupts.py::test_the_call_that_is_being_served_is_answered_before_the_loop_returns"),
    M("the second Ctrl-C does nothing", LOOPS,
      "if self._interrupted:", "if False:",
      "test_interrupts.py::test_the_second_ctrl_c_interrupts_the_handler_and_its_caller_is_told"),
    M("an exception that leaves a server's block is a close", LOOPS,
      "bus.abort()", "pass", "test_abort.py::test_a_server_whose_block_an_exception_leaves_aborts_its_callers"),
    M("a server's forked child is a server", SERVER,
      "return self._closing or self._listener.closed", "return self._closing",
      "test_server_callers.py::test_a_forked_child_of_a_server_is_no_server"),
    M("newcomers come before all others", SERVER,
      "for _ in range(_MOST_AT_ONCE):", "while True:",
      "test_server.py::test_newcomers_without_end_do_not_keep_the_server_from_its_callers"),
    M("a server that ran out of descriptors never listens again", SERVER + "::_serve_until_stopped",
      "self._waiting.add(self._listener)", "",
      "test_server.py::test_without_descriptors_for_one_more_caller_the_others_are_served"),
],
"listeners": [
    M("close ends no accept", WAITING,
      "if (give_up != nullptr && __atomic_load_n(static_cast<int*>(give_up), __ATOMIC_ACQUIRE) != 0) return true;",
      "", "test_listener.py::test_a_listener_is_iterated_and_close_from_another_thread_ends_it"),
    M("close leaves the socket file", LISTENER + "::_finish_close",
      "del opened", "", "test_listener.py::test_a_listener_accepts_one_bus_after_another_and_each_is_whole"),
],
"on the command line": [
    M("a second signal is ignored", CLI_RPC,
      "if ended_by is not None:", "if False:",
      "test_cli_rpc.py::test_a_signal_lets_the_running_call_finish_and_a_second_one_does_not"),
    M("its timeout begins while it is typed", CLI_RPC,
      "deadline = time.monotonic() + timeout", "",
      "test_cli_rpc.py::test_a_request_may_take_longer_to_type_than_its_timeout",
      ((CLI_RPC, "# Read it first", "deadline = time.monotonic() + timeout\n# Read it first"),)),
    M("send does not wait until all has been read", CLI_STREAM,
      "bus.finish()", "", "test_cli.py::test_send_ends_only_when_recv_has_written_everything"),
    M("a bus is open and nobody's for a moment", CLI_OPENING,
      "self._opened.extend(map(partial(open_it, **options), [path]))",
      "bus = open_it(path, **options); self._opened.append(bus)",
      "test_cli_signals.py::test_ctrl_c_at_any_opcode_of_send_is_no_end_of_stream"),
],
}
