"""Event loops: who is cancelled, who waits for whom, asking to be rung, and how it ends."""

from table import Mutant as M

ASYNC = "tachyon/_async.pxi"
BUS = "tachyon/aio/_bus.py"
CLIENT = "tachyon/aio/_client.py"
LISTENER = "tachyon/aio/_listener.py"
OPEN = "tachyon/aio/_open.py"
RPC = "tachyon/aio/_rpc.py"
SERVER = "tachyon/aio/_server.py"
WATCH = "tachyon/aio/_watch.py"

RECEIVERS = "test_aio_cancel.py::test_receivers_that_are_cancelled_lose_nothing"
SENDERS = "test_aio_cancel.py::test_senders_that_are_cancelled_have_sent_nothing"
CALLS = "test_aio_cancel.py::test_calls_that_are_cancelled_are_given_up_and_no_others"
OPENING = "test_aio_cancel.py::test_listen_connect_and_accept_can_be_cancelled_and_leave_nothing_behind"
LATE_REPLY = "test_aio_cancel.py::test_a_reply_that_comes_between_a_cancellation_and_its_task_goes_to_nobody_else"
ORDER = "test_aio.py::test_senders_of_many_tasks_come_in_the_order_in_which_they_came"
PRESSURE = "test_aio_pressure.py::"
OVERTAKING = "test_aio.py::test_nobody_overtakes_who_waits_for_room"
CLOSE = "test_aio_end.py::test_close_ends_what_waits_here_and_tells_the_peer"
CLOSE_CALLS = "test_aio_end.py::test_close_ends_who_waits_for_a_reply_and_takes_the_bus_out_of_the_loop"
WOKEN = "test_aio.py::test_a_receiver_that_waits_is_woken_and_so_is_a_sender_that_waits_for_room"
FORGOTTEN = "test_aio_end.py::test_a_bus_that_is_forgotten_is_closed_and_complained_of"
ANY_ORDER = "test_aio_rpc.py::test_any_number_of_calls_may_be_in_flight_and_be_answered_in_any_order"

TABLE = {
"cancellation": [
    M("what has been taken waits for the loop", WATCH + "::_receive",
      "if got is not None:\nreturn got", "if got is not None:\n    await Pass()\n    return got", RECEIVERS),
    M("what has been sent waits for the loop", WATCH + "::_stand_in_line",
      "if got is not None:\nreturn got", "if got is not None:\n    await Pass()\n    return got", SENDERS),
    M("the quick way takes before it lets the loop have its turn", BUS + "::_take",
      "await self._rest()\nself._check_alone()\ngot = attempt()", "got = attempt()\nawait self._rest()", RECEIVERS),
    M("who was cancelled still receives", WATCH + "::_receive",
      "if self._receiver is place:\nself._receiver = None", "pass",
      "test_aio.py::test_wait_for_and_timeout_of_asyncio_work_too"),
    M("a call that is cancelled stays in flight", RPC + "::request",
      "self.cancel(correlation_id)\nraise", "raise", CALLS),
    M("a reply that nobody waits for any more is lost", ASYNC,
      "future = wanted.pop(frame.correlation_id, None)\nif future is not None and not future.done():",
      "future = wanted.pop(frame.correlation_id, None)\nif future is not None:", LATE_REPLY),
    M("items that were sent are sent again", BUS + "::send_many",
      "chunks.taken(error.sent)", "",
      "test_aio.py::test_items_that_find_room_for_some_of_them_go_out_once"),
    M("an opening that was cancelled goes on", OPEN, "giving_up.ask()", "", OPENING),
    M("a client of an accept that was cancelled is lost", LISTENER,
      "if accepting is None or ended_with_its_loop(accepting):", "if True:",
      "test_aio_cancel.py::test_an_accept_that_is_cancelled_loses_no_peer[8388608]"),
    M("one task that is cancelled takes the others' attempt to connect along", CLIENT,
      "await asyncio.wait([connecting], timeout=left_until(end))", "await asyncio.wait_for(connecting, left_until(end))",
      "test_aio_client.py::test_timeouts_and_cancellation_leave_the_attempt_to_connect_to_others"),
],
"lines of waiters": [
    M("who comes to the line goes first", WATCH, "got = attempt() if first else None", "got = attempt()",
      OVERTAKING + "[send]"),
    M("who has gone keeps his place", WATCH + "::_stand_in_line",
      "self._line.remove(place)\nif self._line:", "if self._line:", ORDER),
    M("the next in line is not told", WATCH + "::_stand_in_line",
      "if self._line:\nself._line[0].wake()", "pass", ORDER),
    M("who need not wait overtakes", ASYNC, "if self._line or not send_message(", "if not send_message(",
      OVERTAKING + "[send]"),
    M("what is written in place overtakes", BUS + "::_once_there_is_room",
      "guard = None if self._line else attempt()", "guard = attempt()", OVERTAKING + "[in place]"),
    M("many overtake", BUS + "::send_many", "await self._rest()\nself._check_open()\n"
      "done = None if self._line else attempt()\nwhile done",
      "await self._rest()\nself._check_open()\ndone = attempt()\nwhile done", OVERTAKING + "[send_many]"),
    M("two may receive", ASYNC + "::_alone",
      "if self._receiver is not None and not self._forget_closed_loop():", "if False:",
      "test_aio.py::test_a_second_receiver_is_refused_and_the_first_is_left_in_peace"),
    M("two may wait for one reply", RPC + "::_wait_for",
      "if (correlation_id in self._watched or correlation_id in self._wanted) and not self._forget_closed_loop():",
      "if False:", "test_aio_rpc.py::test_calls_are_made_served_and_answered_one_by_one"),
    M("tasks of a closed loop are waited for", WATCH,
      "self._receiver = None\nself._line.clear()\nreturn True", "return True",
      "test_aio_trouble.py::test_tasks_that_a_closed_loop_has_left_waiting_are_in_nobodys_way"),
    M("calls of a closed loop are waited for", RPC,
      "self._wanted.clear()\nself._watched.clear()", "pass",
      "test_aio_trouble.py::test_the_answer_to_a_request_that_a_closed_loop_has_left_is_in_nobodys_way"),
    M("any number of handlers run", SERVER, "async with self._slots:", "if True:",
      "test_aio_rpc.py::test_no_more_handlers_run_at_once_than_were_asked_for"),
    M("calls are taken whether or not their handlers may begin", SERVER, "await call.started.wait()", "pass",
      PRESSURE + "test_of_calls_whose_handlers_may_not_begin_one_of_each_caller_is_taken"),
    M("a caller that reads no answers has its calls taken", SERVER, "await caller.paid.wait()", "",
      PRESSURE + "test_no_more_calls_are_taken_of_a_caller_that_reads_no_answers[a function]"),
    M("each task connects by itself", CLIENT, "if self._connecting is None:", "if True:",
      "test_aio_client.py::test_many_tasks_share_one_connection"),
],
"arming": [
    M("who receives asks nobody to ring", WATCH + "::_receive", "if self.bus.arm():", "if True:", WOKEN),
    M("who waits for room asks nobody to ring", WATCH, "if not first or self._arm_for_room():", "if True:", WOKEN),
    M("what came before the asking is not looked at", WATCH + "::_receive",
      "if self.bus.arm():", "if self.bus.arm() or True:",
      PRESSURE + "test_a_message_that_comes_between_the_look_and_the_asking_is_found"),
    M("room that came before the asking is not looked at", WATCH + "::_arm_for_room",
      "return armed", "return True or armed",
      PRESSURE + "test_room_that_comes_between_the_look_and_the_asking_is_found"),
    M("a caller asks nobody to ring", RPC, "if self._looks > 1 and self.bus.arm():", "if self._looks > 1:", CALLS),
    M("a ring does not make a caller look", RPC,
      "elif self._wanted or self._watched or (self._calls and self._line):\nself._look_soon()", "", CALLS),
    M("a ring is not taken out of the descriptor", WATCH,
      "there: bool = self.bus.disarm()", "there = True",
      "test_aio_fair.py::test_a_quiet_bus_takes_no_cpu"),
    M("the descriptor of a peer that is gone stays in the loop", WATCH,
      "self._leave()  # it would ring for ever, and there is nothing more to hear", "pass",
      "test_aio_end.py::test_a_killed_peer_ends_what_waits_for_it_after_all_it_sent"),
    M("who waits is not told of a ring", WATCH + "::_on_ring", "self._wake()", "", WOKEN),
],
"the end in a loop": [
    M("close tells nobody who waits here", WATCH + "::_end_in_loop",
      "if self._loop is not None and not self._loop.is_closed():\nself._wake()", "", CLOSE),
    M("close tells nobody who waits for a reply", RPC + "::_wake",
      "if self._closing:\nself._wake_waiters()", "if self._closing:\n    pass", CLOSE_CALLS),
    M("a bus that is closed goes on", WATCH + "::_check_open", "if self._closing:", "if False:", CLOSE),
    M("an exception is an orderly end", WATCH + "::__aexit__",
      "self.bus.__exit__, exc_type, exc, None", "self.bus.__exit__, None, None, None",
      "test_aio_end.py::test_an_exception_out_of_the_block_is_an_abort_and_so_is_a_cancellation"),
    M("a bus stays in its loop when it is closed", WATCH + "::_end_in_loop",
      "self._closing = True\nself._leave()", "self._closing = True", CLOSE_CALLS),
    M("another thread closes it in the midst of the loop", WATCH,
      "loop.call_soon_threadsafe(self._end_in_loop, loop, how)", "self._end_in_loop(loop, how)",
      "test_aio_end.py::test_close_may_come_from_another_thread"),
    M("a close in the last pass of a loop is never done", WATCH,
      "if loop is None:  # the loop has been stopped before its next pass\nhow()", "pass",
      "test_aio_trouble.py::test_a_close_in_the_last_pass_of_a_loop_is_done_by_the_next_one"),
    M("a loop keeps a bus that nobody has", WATCH, "_ring, weakref.ref(self))", "_ring, lambda: self)", FORGOTTEN),
    M("a bus that is forgotten stays in its loop", WATCH + "::__del__",
      "loop.remove_reader(self._descriptor)\nloop.call_soon(self.bus.close)", "loop.call_soon(self.bus.close)",
      FORGOTTEN),
    M("two loops use one bus", WATCH + "::_enter",
      "if self._loop is not None and not self._loop.is_closed():", "if False:",
      "test_aio_end.py::test_two_loops_in_two_threads_have_a_bus_each_and_one_bus_is_for_one_loop"),
    M("a callee that dies tells nobody who waits for it", RPC + "::_look",
      "self._wake_waiters()\nreturn", "return", "test_aio_end.py::test_a_killed_callee_ends_every_call_in_flight"),
    M("handlers are cancelled at once", SERVER,
      "await asyncio.wait(self._running, timeout=grace)", "pass",
      "test_aio_rpc.py::test_a_close_lets_handlers_finish_within_their_grace_and_tells_the_callers_of_the_rest"),
    M("a handler that is cancelled answers nobody", SERVER,
      "except BaseException as error:  # a cancellation, too: its caller is not left waiting",
      "except Exception as error:",
      "test_aio_rpc.py::test_a_close_lets_handlers_finish_within_their_grace_and_tells_the_callers_of_the_rest"),
    M("a stop cuts short what runs", SERVER,
      "while self._handling and not self._closing:  # close() has its own patience", "while False:",
      PRESSURE + "test_a_stop_waits_for_handlers_that_run_as_long_as_they_take"),
],
}
