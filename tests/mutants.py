#!/usr/bin/env python3
"""Shows that the tests bite: breaks one promise of the Python package at a time, in a copy, and expects tests to fail.

    tests/mutants.py [--list] [--keep FOLDER] [NAME ...]

Prints a table, by promise. Exit status 0: every mutant was killed, by each of the tests that it names, and the
unmutated tree passes them; 1: one survived; 2: the script itself has to be looked after, because a mutation no longer
applies or does not build.

A mutation names its file (or a pattern of files, where the core may be cut anew), the exact text it replaces, and the
tests that must go red. A text that is not found exactly once is an error: the rule has moved, and the mutation has to
follow it. A hang counts as killed where pytest's watchdog ended it, which the table says; one that only the script
could end does not.

Needs what the tests and the build need: pytest, pytest-timeout, numpy, Cython, setuptools, CMake. The C++ tests have
their own: cxx/tests/mutants.py. What only they can see is not repeated here.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYX = "tachyon/_tachyon.pyx"
SUPPORT = "tachyon/_support.pxi"
GUARDS = "tachyon/_guards.pxi"
ERRORS = "tachyon/_errors.py"
IDS = "tachyon/_ids.py"
DLPACK = "tachyon/_dlpack.pxd"
RPC = "tachyon/_rpc.py"
RPC_BUS = "tachyon/_rpc.pxi"
DISPATCHER = "tachyon/_dispatcher.py"
EXCHANGE = "tachyon/_exchange.pxi"
LISTENER = "tachyon/_listener.pxi"
SERVER = "tachyon/_server.py"
CLI = "tachyon/cli/main.py"
CLI_RPC = "tachyon/cli/rpc.py"
CORE = "cxx/src/*.cpp"
HEADERS = "cxx/include/tachyon/*.hpp"

WATCHDOG = 15  # seconds a test may take before pytest ends it; unbroken, each takes less than 2
PATIENCE = 10  # seconds that a test waits for another process or thread
TIME_LIMIT = 90  # seconds a run of pytest may take; only for hangs that its watchdog cannot end
FILE_SIZE = 1 << 30  # bytes; a mutant without its checks must not take the machine's memory


@dataclasses.dataclass
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple
    more: tuple = ()  # further edits of the same mutation: (file, old, new)
    promise: str = ""

    def edits(self):
        return ((self.file, self.old, self.new), *self.more)


def broken_base(child, base, rest):
    """`class child(...)` without one of its bases."""
    return Mutant(f"{child} is no {base}", ERRORS, f"class {child}({', '.join(sorted([base, *rest], key=in_order))}):",
                  f"class {child}({', '.join(rest)}):",
                  ("test_errors.py::test_each_error_is_what_the_documents_say",))


def in_order(base):
    return (not base.startswith("Tachyon"), base != "PeerDeadError")


PAIRS = [("HandshakeError", "TachyonError", "ConnectionError"), ("PeerDeadError", "TachyonError", "ConnectionError"),
         ("PeerClosedError", "PeerDeadError", "EOFError"), ("TachyonTimeoutError", "TachyonError", "TimeoutError"),
         ("BusFullError", "TachyonTimeoutError", "queue.Full"), ("BusEmptyError", "TachyonTimeoutError", "queue.Empty"),
         ("BusClosedError", "TachyonError", "ValueError"), ("MessageTooLargeError", "TachyonError", "ValueError"),
         ("CapacityError", "TachyonError", "ValueError"), ("BusBusyError", "TachyonError", "RuntimeError")]

M = Mutant
PROMISES = {
"Errors: the tree": [
    *(broken_base(child, base, [rest]) for child, *both in PAIRS for base, rest in (both, both[::-1])),
    M("RpcError is no TachyonError", ERRORS, "class RpcError(TachyonError):", "class RpcError(Exception):",
      ("test_errors.py::test_each_error_is_what_the_documents_say",)),
    M("a class that is not in the tree", ERRORS, "class RpcError(TachyonError):", "class RpcError(BusBusyError):",
      ("test_errors.py::test_the_tree_has_no_other_edges",)),
],
"Errors: HandshakeError.errno and .path": [
    M("the number is not kept", ERRORS, "        self.errno = errno\n", "",
      ("test_errors.py::test_a_handshake_error_keeps_number_and_path_through_pickle",
      "test_open.py::test_connect_tries_once_by_default")),
    M("the path is not kept", ERRORS, "        self.path = path\n", "        self.path = None\n",
      ("test_errors.py::test_a_handshake_error_keeps_number_and_path_through_pickle",
      "test_open.py::test_connect_tries_once_by_default")),
    M("pickling loses both", ERRORS, "return type(self), (str(self), self.errno, self.path)",
      "return type(self), (str(self),)",
      ("test_errors.py::test_a_handshake_error_keeps_number_and_path_through_pickle",)),
    M("listen and connect give no number", SUPPORT, "HandshakeError(text, outcome.error_number or None, path)",
      "HandshakeError(text, None, path)", ("test_open.py::test_connect_tries_once_by_default",
      "test_open.py::test_listen_never_removes_what_is_not_a_socket")),
    M("listen and connect give no path", SUPPORT, "HandshakeError(text, outcome.error_number or None, path)",
      "HandshakeError(text, outcome.error_number or None, None)", ("test_open.py::test_connect_tries_once_by_default",
      "test_open.py::test_listen_never_removes_what_is_not_a_socket")),
],
"Errors: HandshakeError for no listener, refused, wrong kind, wrong version, wrong user": [
    M("no listener is another error", SUPPORT, "    return HandshakeError(text,",
      "    if outcome.error_number == 2:\n        return TachyonError(text)\n    return HandshakeError(text,",
      ("test_open.py::test_connect_tries_once_by_default",)),
    M("the kind is not looked at", CORE,
      "if (hello.kind != static_cast<std::uint16_t>(kind)) return Verdict::wrong_kind;", "(void)kind;",
      ("test_strays.py::test_a_client_of_the_other_kind_is_told_on_both_sides",)),
    M("the version is not looked at", CORE, "if (hello.version != kProtocolVersion) return Verdict::wrong_version;", "",
      ("test_strays.py::test_a_listener_that_answers_something_else[changes0-93-speaks protocol version 99]",)),
    M("the listener's user is not looked at", CORE, "        if (!trusted) {", "        if (false && !trusted) {",
      ("test_open.py::test_a_listener_of_another_user_is_refused",)),
    M("a refusal is not read", CORE, "        if (verdict == Verdict::wrong_user) {",
      "        if (false && verdict == Verdict::wrong_user) {",
      ("test_strays.py::test_a_listener_that_answers_something_else[changes3-13-refuses user]",)),
],
"Errors: PeerDeadError.reason": [
    M("a death has no reason", ERRORS, 'reason: Literal["died", "corrupt", "closed"] = "died"',
      'reason: Literal["died", "corrupt", "closed"] = "corrupt"', ("test_errors.py::test_the_reason_of_a_dead_peer",
      "test_peer_end.py::test_what_a_producer_committed_before_it_was_killed_is_delivered_then_the_death[recv]")),
    M("a close has the reason of a death", ERRORS, 'reason: Literal["died", "corrupt", "closed"] = "closed"',
      'reason: Literal["died", "corrupt", "closed"] = "died"', ("test_errors.py::test_the_reason_of_a_dead_peer",
      "test_peer_end.py::test_then_an_explicit_receive_says_closed[recv]")),
    M("a corrupt header is a mere death", PYX, '        error.reason = "corrupt"\n', "",
      ("test_peer_end.py::test_a_frame_that_cannot_be_is_refused[recv-too long]",
      "test_peer_end.py::test_a_read_position_that_cannot_be_is_refused")),
    M("a corrupt header is believed", HEADERS, "if (bytes > room) [[unlikely]]", "if (bytes > room + 64) [[unlikely]]",
      ("test_peer_end.py::test_a_frame_that_cannot_be_is_refused[recv-too long]",)),
],
"Errors: RpcError.msg_type and .detail": [
    M("the msg_type is not kept", ERRORS, "        self.msg_type = msg_type\n", "        self.msg_type = None\n",
      ("test_errors.py::test_an_rpc_error_keeps_type_and_detail_through_pickle",
      "test_dispatcher.py::test_a_failed_handler_answers_logs_and_goes_on")),
    M("the detail is not kept", ERRORS, "        self.detail = detail\n", "        self.detail = None\n",
      ("test_errors.py::test_an_rpc_error_keeps_type_and_detail_through_pickle",
      "test_dispatcher.py::test_a_failed_handler_answers_logs_and_goes_on")),
    M("pickling loses both", ERRORS, "return type(self), (str(self), self.msg_type, self.detail)",
      "return type(self), (str(self),)", ("test_errors.py::test_an_rpc_error_keeps_type_and_detail_through_pickle",)),
],
"Errors: wrong arguments are TypeError, ValueError, OverflowError; a type_id of 2**32 is refused": [
    M("a type_id is truncated", SUPPORT, "if overflow != 0 or (<uint64_t>number) >> 32 != 0:", "if False:",
      ("test_send.py::test_a_type_id_out_of_range_is_refused_never_truncated",
      "test_zero_copy.py::test_the_type_id_may_be_set_in_the_block")),
    M("a type_id of 2**32 passes", SUPPORT, ">> 32 != 0:", ">> 33 != 0:",
      ("test_send.py::test_a_type_id_out_of_range_is_refused_never_truncated",)),
    M("a negative type_id wraps round", SUPPORT, "or (<uint64_t>number) >> 32 != 0:", "or number >> 32 > 0:",
      ("test_send.py::test_a_type_id_out_of_range_is_refused_never_truncated",)),
    M("a type_id may be text", SUPPORT,
      "    if type(value) is not int:\n        value = operator.index(value)\n    cdef long long number",
      "    if type(value) is not int:\n        value = int(value)\n    cdef long long number",
      ("test_send.py::test_a_type_id_of_the_wrong_type_is_refused",)),
    M("the halves of a type_id may overlap", IDS, "if not 0 <= number < 1 << bits:", "if not 0 <= number <= 1 << bits:",
      ("test_ids.py::test_a_half_out_of_range_is_refused_by_name_and_value",
      "test_ids.py::test_a_whole_out_of_range_is_refused")),
    M("a negative timeout is none", SUPPORT, "if isnan(seconds) or seconds < 0:", "if isnan(seconds):",
      ("test_timeouts.py::test_what_is_no_timeout_is_refused_everywhere",)),
    M("NaN is a timeout", SUPPORT, "if isnan(seconds) or seconds < 0:", "if seconds < 0:",
      ("test_timeouts.py::test_what_is_no_timeout_is_refused_everywhere",)),
    M("a timeout may be text", SUPPORT, "    cdef double seconds = timeout\n",
      "    cdef double seconds = float(timeout)\n",
      ("test_timeouts.py::test_what_is_no_timeout_is_refused_everywhere",), ((SUPPORT,
      "    if isinstance(timeout, (str, bytes)):\n", "    if False:\n"),)),
    M("any mode will do", SUPPORT, "if not 0 <= mode <= 0o777:", "if mode < 0:",
      ("test_open.py::test_a_mode_out_of_range_is_refused",)),
    M("a user beyond 32 bits", SUPPORT, "if not 0 <= user < 1 << 32:", "if user < 0:",
      ("test_open.py::test_a_uid_out_of_range_is_refused",)),
    M("a negative size wraps round", PYX, "    if wanted < 0:\n        raise ValueError(",
      "    if False:\n        raise ValueError(", ("test_zero_copy.py::test_a_negative_size_is_refused",)),
    M("a size is truncated", PYX,
      "    if wanted > 0xffffffff:\n        raise too_large(self, wanted)\n    cdef uint64_t claimed = wanted",
      "    cdef uint64_t claimed = wanted & 0xffffffff",
      ("test_zero_copy.py::test_a_size_beyond_every_ring_is_too_large",)),
    M("max_msgs may be 0", PYX, "    if most < 1:", "    if most < 0:",
      ("test_batch.py::test_max_msgs_must_be_positive",)),
    M("spin_threshold may be negative", PYX, "if looks < 0:", "if looks < -1:",
      ("test_batch.py::test_spin_threshold_must_not_be_negative",)),
    M("str has no hint", SUPPORT, "    if isinstance(data, str):\n", "    if False:\n",
      ("test_send.py::test_str_is_told_to_be_encoded",)),
],
"Errors: the text names numbers and path and what to do": [
    M("too large, without numbers", PYX, 'f"a message of {size} bytes"', '"this message"',
      ("test_capacity.py::test_one_byte_more_is_refused_with_both_numbers",)),
    M("capacity, without the value", SUPPORT, "{core.kMaxCapacity} bytes, not {capacity}", "{core.kMaxCapacity} bytes",
      ("test_capacity.py::test_anything_else_is_a_capacity_error_that_names_the_value_and_the_bounds",)),
    M("closed, without the path", PYX,
      'if status == Status.closed:\n        raise BusClosedError(f"this bus ({self._path}) is',
      'if status == Status.closed:\n        raise BusClosedError(f"this bus is',
      ("test_threads.py::test_close_from_another_thread_ends_every_wait[recv-sleeping]",
       "test_recv.py::test_every_use_of_a_closed_bus_is_refused"), ((PYX,
      'or self._closing:\n        raise BusClosedError(f"this bus ({self._path}) is',
      'or self._closing:\n        raise BusClosedError(f"this bus is'),)),
    M("dead, without the pid", PYX, 'PeerDeadError(f"the peer (pid {self._peer_pid}) of', 'PeerDeadError(f"the peer of',
      ("test_peer_end.py::test_what_a_producer_committed_before_it_was_killed_is_delivered_then_the_death[recv]",)),
    M("no listener, without the path", CORE, '"no listener at " + path_ + " (" + why', '"no listener there (" + why',
      ("test_open.py::test_connect_tries_once_by_default", "test_timeouts.py::test_connecting_gives_up_after_it")),
    M("the wrong side, without advice", PYX, "as the first send decided; open a second bus for the way back",
      "as the first send decided", ("test_send.py::test_the_first_send_decides_the_direction",)),
],
"socket_path: str, bytes or PathLike": [
    M("no bytes", SUPPORT, "return os.fsencode(path)", "return str(path).encode()",
      ("test_open.py::test_a_path_may_be_str_bytes_or_pathlike[fsencode]",)),
    M("no PathLike", SUPPORT, "return os.fsencode(path)", "return path if isinstance(path, bytes) else path.encode()",
      ("test_open.py::test_a_path_may_be_str_bytes_or_pathlike[Path]",)),
    M("no str", SUPPORT, "return os.fsencode(path)", "return path if isinstance(path, bytes) else path.__fspath__()",
      ("test_open.py::test_a_path_may_be_str_bytes_or_pathlike[str]",)),
],
"connect tries once by default; with a timeout it waits for a listener": [
    M("it waits by default", PYX, 'timeout=0.0, uid=None):\n        """Attach to the bus',
      'timeout=0.05, uid=None):\n        """Attach to the bus', ("test_open.py::test_connect_tries_once_by_default",)),
    M("it waits for ever by default", PYX, 'timeout=0.0, uid=None):\n        """Attach to the bus',
      'timeout=None, uid=None):\n        """Attach to the bus', ("test_open.py::test_connect_tries_once_by_default",)),
    M("it never waits", PYX, "deadline = 0 if timeout is not None and timeout == 0 else deadline_after(timeout)",
      "deadline = 0 if deadline_after(timeout) else 0",
      ("test_open.py::test_connect_with_a_timeout_waits_for_a_listener",
      "test_open.py::test_connect_without_end_waits_for_a_listener",
      "test_timeouts.py::test_connecting_gives_up_after_it")),
    M("it does not wait the whole time", PYX,
      "deadline = 0 if timeout is not None and timeout == 0 else deadline_after(timeout)",
      "deadline = 0 if timeout is not None and timeout == 0 else deadline_after(None if timeout is "
      "None else timeout / 1000)", ("test_timeouts.py::test_connecting_gives_up_after_it",)),
],
"listen and connect: timeout, a number of seconds, or None for ever": [
    M("listen does not wait by default", PYX, "capacity, *, timeout=None, mode", "capacity, *, timeout=0.05, mode",
      ("test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[listen]",)),
    M("listen's timeout never ends", CORE, "        if (now_ns() >= deadline) {\n            throw",
      "        if (false) {\n            throw", ("test_timeouts.py::test_listening_gives_up_after_it",)),
    M("connect's timeout never ends", CORE, "                if (now_ns() >= options_.deadline) {\n",
      "                if (false) {\n", ("test_timeouts.py::test_connecting_gives_up_after_it",)),
    M("running out is another error", SUPPORT, "return TachyonTimeoutError(text)", "return TachyonError(text)",
      ("test_timeouts.py::test_listening_gives_up_after_it", "test_timeouts.py::test_connecting_gives_up_after_it")),
],
"listen removes nothing but a socket that nobody listens on": [
    M("what is not a socket is removed", CORE, "    if (!S_ISSOCK(status.st_mode)) {",
      "    if (!S_ISSOCK(status.st_mode) && ::unlink(path.c_str()) != 0) {",
      ("test_open.py::test_listen_never_removes_what_is_not_a_socket[file]",
      "test_open.py::test_listen_never_removes_what_is_not_a_socket[symlink]",
      "test_open.py::test_listen_never_removes_what_is_not_a_socket[fifo]")),
    M("the target of a link counts", CORE, "    if (::lstat(path.c_str(), &status) != 0) {",
      "    if (::stat(path.c_str(), &status) != 0) {",
      ("test_open.py::test_listen_never_removes_what_is_not_a_socket[dangling symlink]",)),
    M("a socket of another type is removed", CORE, "    if (errno != ECONNREFUSED) {", "    if (false) {",
      ("test_open.py::test_a_socket_of_another_type_is_left_alone",)),
    M("a stale socket stays", CORE, "if (::unlink(path.c_str()) != 0 && errno != ENOENT) {", "if (false) {",
      ("test_open.py::test_a_stale_socket_is_replaced", "test_open.py::test_a_killed_listeners_socket_is_replaced")),
],
"a second listener on a live path is refused": [
    M("it takes the path over", CORE, "    if (rc == 0 || errno == EAGAIN) {",
      "    if (rc == 0) errno = ECONNREFUSED;\n    if (rc == -2) {",
      ("test_open.py::test_a_second_listener_is_refused_and_the_first_served",
      "test_open.py::test_a_live_listeners_socket_is_left_alone_whoever_it_is")),
    M("it takes over a path with a full queue", CORE, "    if (rc == 0 || errno == EAGAIN) {",
      "    if (rc != 0 && errno == EAGAIN) errno = ECONNREFUSED;\n    if (rc == 0) {",
      ("test_open.py::test_a_live_socket_with_a_full_queue_is_left_alone",)),
],
"a stray client does not use the listener up": [
    M("a client that says nothing ends it", CORE, "case HelloReader::Progress::more: return false;",
      'case HelloReader::Progress::more: fail_handshake(EPROTO, "it says nothing");',
      ("test_strays.py::test_a_silent_client_is_no_hindrance",)),
    M("a client that hangs up ends it", CORE, "case HelloReader::Progress::failed: drop(client); return false;",
      'case HelloReader::Progress::failed: fail_handshake(EPROTO, "it is gone");',
      ("test_strays.py::test_garbage_is_no_hindrance[close_at_once]",
      "test_strays.py::test_garbage_is_no_hindrance[descriptors_and_noise]")),
    M("a client that says garbage ends it", CORE, "if (!is_ours(hello)) return drop(client);",
      'if (!is_ours(hello)) fail_handshake(EPROTO, "garbage");', ("test_strays.py::test_garbage_is_no_hindrance[noise]",
      "test_strays.py::test_garbage_is_no_hindrance[zeros]",
      "test_strays.py::test_all_of_them_at_once_are_no_hindrance")),
    M("garbage is taken for a greeting", CORE, "if (!is_ours(hello)) return drop(client);", "",
      ("test_strays.py::test_a_greeting_that_is_right_but_for_its_first_words_is_dropped",)),
    M("a client that drops out at the last step has been served", CORE,
      "if (n == 1 && byte == kReady && client.state == Client::State::offered) return true;",
      "if (client.state == Client::State::offered) return true;",
      ("test_strays.py::test_a_client_that_drops_out_at_the_last_step_is_no_hindrance",)),
],
"the socket file is gone after the handshake, an error or Ctrl-C": [
    M("it stays", CORE, "SocketFile::~SocketFile() {\n", "SocketFile::~SocketFile() {\n    return;\n",
      ("test_open.py::test_the_path_is_gone_once_both_are_let_in",
      "test_open.py::test_the_path_is_gone_after_a_timeout",
      "test_strays.py::test_a_client_of_the_other_kind_is_told_on_both_sides",
      "test_signals.py::test_ctrl_c_ends_it[listen]",
      "test_signals.py::test_the_exception_of_another_handler_comes_out")),
    M("whatever has taken its place goes too", CORE, "status.st_dev == device_ && status.st_ino == inode_) {",
      "status.st_dev == device_) {", ("test_open.py::test_another_file_that_took_the_path_meanwhile_survives",)),
],
"mode": [
    M("others are let in by default", PYX, 'mode=0o600):\n        """Create a ring of',
      'mode=0o666):\n        """Create a ring of', ("test_open.py::test_the_socket_file_has_the_mode_asked_for",)),
    M("it is ignored", PYX,
      "options.capacities = {capacity};\n        options.deadline = deadline;\n        options.mode = mode;",
      "options.capacities = {capacity};\n        options.deadline = deadline;\n        (void)mode;",
      ("test_open.py::test_the_socket_file_has_the_mode_asked_for",)),
    M("the umask takes from it", CORE, "if ((status.st_mode & 0777) != mode) ::chmod(path.c_str(), mode);", "",
      ("test_open.py::test_the_socket_file_has_the_mode_asked_for",)),
    M("other users are let in whatever it says", CORE, "if (peer != ::geteuid() && peer != 0 && !everybody) {",
      "if (false && everybody) {",
      ("test_open.py::test_a_client_of_another_user_is_refused_unless_the_mode_lets_it_in",)),
    M("other users are never let in", CORE, "if (peer != ::geteuid() && peer != 0 && !everybody) {",
      "if (peer != ::geteuid() && peer != 0 && (!everybody || true)) {",
      ("test_open.py::test_a_client_of_another_user_is_refused_unless_the_mode_lets_it_in",)),
],
"capacity: a power of two within stated bounds, checked before anything is allocated": [
    M("it is not checked", SUPPORT,
      "if not core.kMinCapacity <= capacity <= core.kMaxCapacity or capacity & (capacity - 1):", "if False:",
      ("test_capacity.py::test_anything_else_is_a_capacity_error_that_names_the_value_and_the_bounds",)),
    M("any number of bytes will do", SUPPORT,
      "if not core.kMinCapacity <= capacity <= core.kMaxCapacity or capacity & (capacity - 1):",
      "if not core.kMinCapacity <= capacity <= core.kMaxCapacity:",
      ("test_capacity.py::test_anything_else_is_a_capacity_error_that_names_the_value_and_the_bounds",), ((HEADERS,
      "&& (capacity & (capacity - 1)) == 0;", "&& capacity != 0;"),)),
    M("another least", HEADERS, "kMinCapacity = kLine", "kMinCapacity = 2 * kLine",
      ("test_capacity.py::test_the_bounds_are_stated",)),
    M("it is another error", SUPPORT, "        raise CapacityError(\n", "        raise ValueError(\n",
      ("test_capacity.py::test_anything_else_is_a_capacity_error_that_names_the_value_and_the_bounds",)),
    M("a float will do", SUPPORT, 'if isinstance(value, float) or not hasattr(value, "__index__"):', "if False:",
      ("test_capacity.py::test_anything_but_an_int_is_a_type_error",), ((SUPPORT,
      "    capacity = operator.index(value)\n", "    capacity = int(value)\n"),)),
],
"memory is reserved up front; a lack of it is a MemoryError that names the size": [
    M("nothing is reserved", CORE, "    reserve(segment.descriptor(), bytes);\n", "    (void)reserve;\n",
      ("test_resources.py::test_the_memory_is_there_before_anybody_is_let_in",), ((CORE, "MAP_SHARED | MAP_POPULATE",
      "MAP_SHARED"),)),
    M("nobody looks whether there is enough", CORE, "    if (bytes > available) {",
      "    if (bytes > available && false) {",
      ("test_resources.py::test_a_capacity_beyond_the_machines_memory_is_refused_before_it_is_allocated",)),
    M("a lack is another error", SUPPORT,
      "if outcome.failure == <int>core.SetupFailure.memory:\n        return MemoryError(text)",
      "if outcome.failure == <int>core.SetupFailure.memory:\n        return TachyonError(text)",
      ("test_resources.py::test_a_lack_of_address_space_is_a_memory_error_that_names_the_size",
      "test_resources.py::test_a_limit_on_file_sizes_is_an_error_too")),
    M("the size is not named", CORE, '"cannot get " + std::to_string(bytes) + " bytes', '"cannot get so many bytes',
      ("test_resources.py::test_a_lack_of_address_space_is_a_memory_error_that_names_the_size",)),
    M("no memory for a message loses it", PYX,
      "            tachyon_core(self._core).put_back(frame[0])\n        else:\n",
      "            tachyon_core(self._core).release(frame[0])\n        else:\n",
      ("test_resources.py::test_a_message_that_there_is_no_memory_for_stays_the_next_one",)),
],
"either side may be the producer: the first send decides": [
    M("only the listener may send", CORE, "    if (peer_said_closed()) return Status::peer_closed;\n    // [role]",
      "    if (side_ != Side::listener) return Status::wrong_side;\n    // [role]",
      ("test_send.py::test_the_first_send_decides_the_direction[connector]",)),
    M("only the connector may send", CORE, "    if (peer_said_closed()) return Status::peer_closed;\n    // [role]",
      "    if (side_ != Side::connector) return Status::wrong_side;\n    // [role]",
      ("test_send.py::test_the_first_send_decides_the_direction[listener]",)),
    M("both may send", CORE, "    return first ? Status::ok : Status::wrong_side;", "    return Status::ok;",
      ("test_send.py::test_the_first_send_decides_the_direction",
      "test_send.py::test_when_two_processes_send_first_one_is_refused")),
    M("it is another error", PYX, "    if status == Status.wrong_side:\n        raise BusBusyError(",
      "    if status == Status.wrong_side:\n        raise TachyonError(",
      ("test_send.py::test_the_first_send_decides_the_direction",)),
    M("a send that cannot be decides too", CORE,
      "    if (size > max_size_) return Status::too_large;  // a message that cannot be sent decides nothing\n", "",
      ("test_capacity.py::test_one_byte_more_is_refused_with_both_numbers",)),
    M("a look decides", CORE, "        if (!consumer_.has_frame()) return Status::empty;\n",
      "        if (!consumer_.has_frame()) {\n"
      "            mode_.store(Mode::consumer, std::memory_order_relaxed);\n            return Status::empty;\n"
      "        }\n", ("test_send.py::test_a_receiver_that_waits_does_not_decide",)),
],
"send: any buffer, by its bytes, strided ones too": [
    M("only bytes", PYX, "    if not PyObject_CheckBuffer(data):\n", "    if True:\n",
      ("test_send.py::test_any_buffer_arrives_by_its_bytes[bytearray]", "test_send.py::test_an_mmap_can_be_sent")),
    M("no strides", PYX, "PyObject_GetBuffer(data, &view, PyBUF_FULL_RO)", "PyObject_GetBuffer(data, &view, 0)",
      ("test_send.py::test_any_buffer_arrives_by_its_bytes[every second byte]",
      "test_send.py::test_any_buffer_arrives_by_its_bytes[numpy every third]")),
    M("memory order", PYX, 'if PyBuffer_IsContiguous(&view, b"C"):', 'if PyBuffer_IsContiguous(&view, b"A"):',
      ("test_send.py::test_any_buffer_arrives_by_its_bytes[numpy F-order]",)),
    M("strided ones in Fortran's order", PYX, 'PyBuffer_ToContiguous(payload, strided, size, b"C")',
      'PyBuffer_ToContiguous(payload, strided, size, b"F")',
      ("test_send.py::test_any_buffer_arrives_by_its_bytes[numpy corner]",)),
    M("by its items", PYX, "sent = send_bytes(self, <const char*>view.buf, view.len, NULL,",
      "sent = send_bytes(self, <const char*>view.buf, view.len // view.itemsize, NULL,",
      ("test_send.py::test_any_buffer_arrives_by_its_bytes[array of int]",)),
    M("a large one loses its end", PYX, "            with nogil:\n                memcpy(payload, data, size)\n",
      "            with nogil:\n                memcpy(payload, data, size - 1)\n",
      ("test_send.py::test_every_size_arrives_whole",)),
    M("the buffer is never let go", PYX, "    finally:\n        PyBuffer_Release(&view)\n    return sent",
      "    finally:\n        pass\n    return sent", ("test_send.py::test_the_buffer_is_free_again_after_the_send",
      "test_send.py::test_the_buffer_is_free_again_after_a_refusal")),
    M("the type_id is lost on the way", PYX,
      "return send_object(self, data, type_id, deadline, wait, quietly, &origin)",
      "return send_object(self, data, 0, deadline, wait, quietly, &origin)",
      ("test_send.py::test_every_type_id_arrives",)),
    M("a message that cannot fit waits for ever", PYX,
      "            if status != Status.full:\n                raise_status(self, status, size)\n"
      "            if not wait:", "            if status != Status.full and status != Status.too_large:\n"
      "                raise_status(self, status, size)\n            if not wait:",
      ("test_capacity.py::test_one_byte_more_is_refused_with_both_numbers",)),
],
"send waits while the ring is full": [
    M("it gives up silently", PYX, "            if not wait:\n                return 0\n",
      "            if True:\n                return 0\n", ("test_send.py::test_send_waits_for_room",
      "test_send.py::test_a_strided_or_large_buffer_waits_for_room_too")),
    M("it raises at once", PYX, "        if core.now_ns() >= deadline:\n            raise BusFullError(",
      "        if True:\n            raise BusFullError(", ("test_send.py::test_send_waits_for_room",)),
    M("its timeout never ends", PYX, "        if core.now_ns() >= deadline:\n            raise BusFullError(",
      "        if False:\n            raise BusFullError(", ("test_timeouts.py::test_sending_gives_up_after_it",)),
    M("a timeout is in milliseconds", SUPPORT, "cdef double ns = seconds * 1e9", "cdef double ns = seconds * 1e6",
      ("test_timeouts.py::test_sending_gives_up_after_it", "test_timeouts.py::test_receiving_gives_up_after_it")),
    M("full is not BusFullError", PYX, 'raise BusFullError(f"no room for', 'raise BusEmptyError(f"no room for',
      ("test_timeouts.py::test_sending_gives_up_after_it",)),
],
"send and receive: timeout=None waits as long as the peer lives": [
    *(M(f"{call} does not wait by default", PYX, before + after, before + after.replace("None", "0"),
        (f"test_threads.py::test_close_from_another_thread_ends_every_wait[{call}-sleeping]",))
      for call, before, after in (
          ("send", "def send(self, data, type_id=0, *, ", "timeout=None)"),
          ("send_many", "def send_many(self, items, type_id=0, *, ", "timeout=None)"),
          ("send_zero_copy", "def send_zero_copy(self, size, type_id=0, *, ", "timeout=None)"),
          ("recv", "def recv(self, *, ", "timeout=None)"),
          ("recv_into", "def recv_into(self, buffer, *, ", "timeout=None)"),
          ("recv_zero_copy", "def recv_zero_copy(self, *, ", "timeout=None)"),
          ("drain_batch", "def drain_batch(self, max_msgs=1024, spin_threshold=10000, *, ", "timeout=None)"))),
    M("iteration does not wait", PYX, "next_frame(self, &frame, core.kNever, LOOKS_WITH_GIL, NULL)",
      "next_frame(self, &frame, 1, LOOKS_WITH_GIL, NULL)",
      ("test_threads.py::test_close_from_another_thread_ends_every_wait[next-sleeping]",
       "test_recv.py::test_iteration_waits_and_ends_with_the_producer")),
],
"try_send -> bool": [
    M("an int", PYX, "return send_until(self, data, as_type_id(type_id), 0, False, False) == 1",
      "return send_until(self, data, as_type_id(type_id), 0, False, False)",
      ("test_send.py::test_any_buffer_arrives_by_its_bytes",
      "test_send.py::test_try_send_says_false_when_the_ring_is_full")),
    M("it raises when full", PYX, "return send_until(self, data, as_type_id(type_id), 0, False, False) == 1",
      "return send_until(self, data, as_type_id(type_id), 0, True, False) == 1",
      ("test_send.py::test_try_send_says_false_when_the_ring_is_full",)),
],
"send_many: buffers or pairs, one wake-up for all": [
    M("no pairs", PYX, "                if isinstance(item, tuple):", "                if False:",
      ("test_send.py::test_send_many_takes_buffers_pairs_and_messages",)),
    M("no tuples of another class", PYX, "                if isinstance(item, tuple):",
      "                if type(item) is tuple:", ("test_send.py::test_a_named_pair_is_a_pair",)),
    M("a pair's type_id is not used", PYX, "item_type = as_type_id((<tuple>item)[1])", "as_type_id((<tuple>item)[1])",
      ("test_send.py::test_send_many_takes_buffers_pairs_and_messages",)),
    M("a pair's type_id sticks", PYX, "                item_type = default_type\n                data = item",
      "                data = item", ("test_send.py::test_send_many_takes_buffers_pairs_and_messages",), ((PYX,
      "cdef uint32_t default_type = as_type_id(type_id), item_type\n",
      "cdef uint32_t default_type = as_type_id(type_id)\n        cdef uint32_t item_type = default_type\n"),)),
    M("a Message's type_id is not used", PYX, "                    item_type = (<Message>item).type_id\n", "",
      ("test_send.py::test_send_many_takes_buffers_pairs_and_messages",)),
    M("a triple will do", PYX, "if len(<tuple>item) != 2:", "if len(<tuple>item) < 2:",
      ("test_send.py::test_a_tuple_that_is_no_pair_is_refused",)),
    M("it does not count", PYX, "                sent += 1\n", "",
      ("test_send.py::test_any_buffer_arrives_by_its_bytes",)),
    M("a wake-up for each", PYX, "send_until(self, data, item_type, deadline, True, quietly)",
      "send_until(self, data, item_type, deadline, True, False)\n                if sent % 10 == 9:\n"
      "                    os.sched_yield()", ("test_send.py::test_send_many_wakes_a_sleeping_consumer_once",)),
    M("no wake-up", PYX, "        finally:\n            if self._core != NULL:\n"
      "                tachyon_core(self._core).wake_consumer()\n        return sent",
      "        finally:\n            pass\n        return sent",
      ("test_send.py::test_send_many_wakes_a_sleeping_consumer_once",)),
    M("no wake-up before it waits for room", PYX, "            if quietly:\n                bus.wake_consumer()\n", "",
      ("test_send.py::test_send_many_wakes_a_sleeping_consumer_before_it_waits_for_room",)),
    M("a full ring does not tell how many went out", PYX, "            error.sent = sent\n            raise",
      "            raise", ("test_send.py::test_send_many_counts_what_was_sent_before_the_ring_was_full",)),
    M("the timeout is for each", PYX, "send_until(self, data, item_type, deadline, True, quietly)",
      "send_until(self, data, item_type, deadline_after(timeout), True, quietly)",
      ("test_timeouts.py::test_one_timeout_is_for_all_of_send_many",)),
    M("what went out before an error is not counted by the waker", PYX,
      "        finally:\n            if self._core != NULL:\n"
      "                tachyon_core(self._core).wake_consumer()",
      "        finally:\n            tachyon_core(self._core).wake_consumer()",
      ("test_send.py::test_a_bus_closed_by_an_item_ends_send_many",)),
],
"for msg in bus, recv, try_recv": [
    M("iteration does not stop", PYX, "            leave(self)\n            raise StopIteration",
      "            leave(self)\n            raise_status(self, Status.peer_closed, 0)",
      ("test_recv.py::test_iteration_waits_and_ends_with_the_producer",
      "test_peer_end.py::test_what_a_producer_sent_before_it_closed_is_delivered_then_iteration_stops")),
    M("a bus is busy after iteration", PYX, "            leave(self)\n            raise StopIteration",
      "            raise StopIteration", ("test_recv.py::test_a_bus_is_its_own_iterator",)),
    M("a closed bus can be iterated", PYX, "    def __iter__(self):\n        check_open(self)\n",
      "    def __iter__(self):\n", ("test_recv.py::test_every_use_of_a_closed_bus_is_refused",)),
    M("a message comes twice", PYX,
      "        else:\n            tachyon_core(self._core).release(frame[0])\n        leave(self)",
      "        else:\n            tachyon_core(self._core).put_back(frame[0])\n        leave(self)",
      ("test_recv.py::test_messages_arrive_in_order",)),
    M("a frame is never freed", PYX,
      "        else:\n            tachyon_core(self._core).release(frame[0])\n        leave(self)",
      "        leave(self)", ("test_recv.py::test_messages_arrive_in_order",
      "test_capacity.py::test_a_ring_of_one_message_makes_progress")),
    M("a large message loses its end", PYX,
      "            copy_out(<uint8_t*>PyBytes_AS_STRING(data), frame.payload, frame.size)",
      "            copy_out(<uint8_t*>PyBytes_AS_STRING(data), frame.payload, frame.size - 1)",
      ("test_send.py::test_every_size_arrives_whole",)),
    M("recv does not wait", PYX, "                if status == Status.empty and core.now_ns() >= deadline:",
      "                if status == Status.empty:", ("test_recv.py::test_recv_waits",
      "test_timeouts.py::test_a_wait_without_end_waits")),
    M("recv's timeout never ends", PYX, "                if status == Status.empty and core.now_ns() >= deadline:",
      "                if False:", ("test_timeouts.py::test_receiving_gives_up_after_it",)),
    M("empty is not BusEmptyError", PYX, 'raise BusEmptyError("no message within',
      'raise BusFullError("no message within', ("test_timeouts.py::test_receiving_gives_up_after_it",)),
    M("try_recv raises when there is nothing", PYX,
      "            if status != Status.empty:\n                raise_status(self, status, 0)\n        finally:",
      "            raise_status(self, status, 0)\n        finally:",
      ("test_recv.py::test_try_recv_says_none_when_there_is_nothing",)),
    M("try_recv hides the peer's end", PYX,
      "            if status != Status.empty:\n                raise_status(self, status, 0)\n        finally:",
      "            pass\n        finally:", ("test_peer_end.py::test_then_an_explicit_receive_says_closed[try_recv]",)),
    M("a received message has another's type_id", PYX, "    return new_message(frame.type_id, data)",
      "    return new_message(frame.type_id & 0xffff, data)", ("test_send.py::test_every_type_id_arrives",)),
],
"recv_into(buffer) -> (size, type_id)": [
    M("the pair is the other way round", PYX, "return frame.size, frame.type_id", "return frame.type_id, frame.size",
      ("test_recv.py::test_recv_into_fills_any_writable_buffer",)),
    M("it writes nothing", PYX, "                copy_out(<uint8_t*>view.buf, frame.payload, frame.size)\n", "",
      ("test_recv.py::test_recv_into_fills_any_writable_buffer",)),
    M("it writes beyond the message", PYX, "copy_out(<uint8_t*>view.buf, frame.payload, frame.size)",
      "copy_out(<uint8_t*>view.buf, frame.payload, min(view.len, 8))",
      ("test_recv.py::test_recv_into_leaves_the_rest_alone",)),
    M("it writes beyond the buffer", PYX, "                if frame.size > view.len:",
      "                if frame.size > view.len + 1:",
      ("test_recv.py::test_a_buffer_that_is_too_small_leaves_the_message",)),
    M("a buffer that is too small loses the message", PYX,
      "                    tachyon_core(self._core).put_back(frame)\n"
      "                    raise MessageTooLargeError(", "                    tachyon_core(self._core).release(frame)\n"
      "                    raise MessageTooLargeError(",
      ("test_recv.py::test_a_buffer_that_is_too_small_leaves_the_message",)),
    M("the frame is never freed", PYX, "                tachyon_core(self._core).release(frame)\n            finally:",
      "                pass\n            finally:",
      ("test_recv.py::test_a_buffer_that_is_too_small_leaves_the_message",)),
    M("a read-only buffer is written to", PYX, "&view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)",
      "&view, PyBUF_C_CONTIGUOUS)", ("test_recv.py::test_recv_into_a_buffer_that_will_not_do_is_refused",)),
    M("the buffer is never let go", PYX,
      "        finally:\n            PyBuffer_Release(&view)\n        return frame.size",
      "        finally:\n            pass\n        return frame.size",
      ("test_recv.py::test_recv_into_lets_the_buffer_go",)),
],
"Message: immutable, comparable, hashable, picklable, unpackable, with a good repr": [
    M("type_id can be set", SUPPORT, "cdef readonly uint32_t type_id", "cdef public uint32_t type_id",
      ("test_message.py::test_it_is_immutable",)),
    M("data can be set", SUPPORT, "cdef readonly bytes data", "cdef public bytes data",
      ("test_message.py::test_it_is_immutable",)),
    M("__init__ changes it", SUPPORT, "        if self.data is not None:\n            raise TypeError(",
      "        if False:\n            raise TypeError(", ("test_message.py::test_it_cannot_be_made_anew",)),
    M("== compares identity", SUPPORT, "return mine == theirs", "return self is other",
      ("test_message.py::test_it_compares_by_value",)),
    M("!= is never", SUPPORT, "return mine != theirs", "return False", ("test_message.py::test_it_compares_by_value",)),
    M("< is <=", SUPPORT, "return mine < theirs", "return mine <= theirs", ("test_message.py::test_it_has_an_order",)),
    M("<= is <", SUPPORT, "return mine <= theirs", "return mine < theirs", ("test_message.py::test_it_has_an_order",)),
    M("> is >=", SUPPORT, "return mine > theirs", "return mine >= theirs", ("test_message.py::test_it_has_an_order",)),
    M(">= is >", SUPPORT, "return mine >= theirs", "return mine > theirs", ("test_message.py::test_it_has_an_order",)),
    M("it compares with anything", SUPPORT, "            return NotImplemented\n", "            return op != 2\n",
      ("test_message.py::test_it_has_an_order",)),
    M("equal ones hash differently", SUPPORT, "return hash(self._fields())", "return id(self) >> 4",
      ("test_message.py::test_it_hashes_as_it_compares",)),
    M("pickling loses the type_id", SUPPORT, "return Message, self._fields()", "return Message, (0, None, self.data)",
      ("test_message.py::test_it_pickles", "test_message.py::test_it_copies")),
    M("it unpacks in another order", SUPPORT, "return iter(self._fields())", "return iter(self._fields()[::-1])",
      ("test_message.py::test_it_unpacks",)),
    M("it does not unpack", SUPPORT, "    def __iter__(self):\n        return iter(self._fields())\n", "",
      ("test_message.py::test_it_unpacks",)),
    M("the repr has no size", SUPPORT, "type_id={self.type_id}, size={self.size}, data", "type_id={self.type_id}, data",
      ("test_message.py::test_its_repr_makes_it_again",)),
    M("a long repr is not cut", SUPPORT, "if len(self.data) <= 64 else", "if True else",
      ("test_message.py::test_a_long_repr_is_cut",)),
    M("size may differ from data's", SUPPORT, "if size is not None and size != len(data):", "if False:",
      ("test_message.py::test_what_cannot_be_a_message_is_refused",)),
    M("data may be what can change", SUPPORT, "if not PyBytes_CheckExact(data):\n            raise",
      "if not isinstance(data, (bytes, bytearray)):\n            raise",
      ("test_message.py::test_what_cannot_be_a_message_is_refused",), ((SUPPORT,
      "        self.data = data\n        if size", "        self.data = bytes(data)\n        if size"),)),
],
"any message of up to max_message_size at any ring position; a ring of one message makes progress": [
    M("max_message_size says less", PYX, "return self._capacity - 16 if self._capacity else 0",
      "return self._capacity - 64",
      ("test_capacity.py::test_both_sides_know_it",)),
    M("the core takes less", HEADERS, "return size <= max_size_ ? Status::ok", "return size < max_size_ ? Status::ok",
      ("test_capacity.py::test_the_largest_message_goes_through_at_every_position",)),
    M("the core takes more", HEADERS, "return size <= max_size_ ? Status::ok",
      "return size <= max_size_ + 1 ? Status::ok",
      ("test_capacity.py::test_one_byte_more_is_refused_with_both_numbers",)),
    M("padding and the largest frame have to fit together", HEADERS,
      "return rest + frame <= memory_.capacity ? rest + frame : rest;", "return rest + frame;",
      ("test_capacity.py::test_the_largest_message_goes_through_at_every_position",)),
    M("a reader that finds nothing does not hand back", HEADERS,
      "            if (word == 0) {\n                hand_back();", "            if (word == 0) {",
      ("test_capacity.py::test_the_largest_message_goes_through_at_every_position",)),
    M("what is read is handed back rarely", HEADERS, "publish_every_(memory.capacity / 8)",
      "publish_every_(memory.capacity * 8)", ("test_capacity.py::test_a_ring_of_one_message_makes_progress",),
      ((HEADERS, "            if (word == 0) {\n                hand_back();", "            if (word == 0) {"),)),
],
"send_zero_copy: writable; actual_size, type_id; exit publishes and wakes; an exception gives the frame back": [
    M("it is read-only", PYX, "guard.start(self, payload, <Py_ssize_t>claimed, False)",
      "guard.start(self, payload, <Py_ssize_t>claimed, True)",
      ("test_zero_copy.py::test_its_buffer_is_writable_bytes_of_the_size_asked_for",)),
    M("it is longer than asked for", PYX, "guard.start(self, payload, <Py_ssize_t>claimed, False)",
      "guard.start(self, payload, <Py_ssize_t>claimed + 1, False)",
      ("test_zero_copy.py::test_its_buffer_is_writable_bytes_of_the_size_asked_for",)),
    M("actual_size starts at 0", PYX, "    guard._actual_size = claimed\n", "",
      ("test_zero_copy.py::test_actual_size_starts_at_the_size_and_cuts_the_message",)),
    M("actual_size is ignored", GUARDS, "bus.commit(<uint32_t>self._actual_size,", "bus.commit(<uint32_t>self._size,",
      ("test_zero_copy.py::test_actual_size_starts_at_the_size_and_cuts_the_message",)),
    M("actual_size is not checked", GUARDS, "if not 0 <= size <= self._size:", "if False:",
      ("test_zero_copy.py::test_an_actual_size_out_of_range_is_refused_with_both_numbers",)),
    M("actual_size may be one more", GUARDS, "if not 0 <= size <= self._size:", "if not 0 <= size <= self._size + 1:",
      ("test_zero_copy.py::test_an_actual_size_out_of_range_is_refused_with_both_numbers",)),
    M("type_id is ignored", PYX, "    guard._type_id = type_id\n", "", ("test_send.py::test_every_type_id_arrives",)),
    M("type_id cannot be set", GUARDS, "        self._type_id = kind\n", "",
      ("test_zero_copy.py::test_the_type_id_may_be_set_in_the_block",)),
    M("exit publishes nothing", GUARDS, "cdef int status = self._end(exc_type is None)",
      "cdef int status = self._end(False)", ("test_zero_copy.py::test_the_published_example",)),
    M("an exception publishes too", GUARDS, "cdef int status = self._end(exc_type is None)",
      "cdef int status = self._end(True)", ("test_zero_copy.py::test_an_exception_gives_the_frame_back",)),
    M("an exception keeps the frame", GUARDS, "            return <int>bus.abort()\n",
      "            return <int>Status.ok\n", ("test_zero_copy.py::test_an_exception_gives_the_frame_back",
      "test_zero_copy.py::test_a_guard_that_is_dropped_without_a_block_gives_the_frame_back")),
    M("a guard that is dropped keeps the frame", GUARDS,
      "    def __dealloc__(self):\n        if self._open:\n            self._end(False)\n",
      "    def __dealloc__(self):\n        pass\n",
      ("test_zero_copy.py::test_a_guard_that_is_dropped_without_a_block_gives_the_frame_back",)),
    M("exit wakes nobody", HEADERS, "if constexpr (kWake == Wake::now) wake_consumer();", "",
      ("test_zero_copy.py::test_leaving_the_block_wakes_a_sleeper", "test_stats.py::test_parks_and_wakes_are_counted")),
    M("what is cut off stays behind", HEADERS, "detail::clear_lines(start + frame, start + claimed_);", ";",
      ("test_zero_copy.py::test_the_lines_cut_off_or_given_back_never_look_like_a_message",)),
    M("what is given back stays behind", HEADERS, "detail::clear_lines(line() + kLine, line() + claimed_);", ";",
      ("test_zero_copy.py::test_the_lines_cut_off_or_given_back_never_look_like_a_message",)),
    M("a send that fails at exit is not told", GUARDS,
      "if status != <int>Status.ok and exc_type is None and not self._readonly:", "if False:",
      ("test_zero_copy.py::test_closing_the_bus_within_a_block_loses_what_was_to_be_sent_and_says_so",)),
    M("it does not wait for room", PYX,
      "            await_room(self, claimed, deadline, origin)\n        self._guards += 1",
      "            await_room(self, claimed, min(deadline, 1), origin)\n        self._guards += 1",
      ("test_zero_copy.py::test_a_claim_waits_for_room",)),
],
"recv_zero_copy: read-only; actual_size, type_id; exit frees the frame": [
    M("it can be written to", PYX, "guard._frame.size, True)", "guard._frame.size, False)",
      ("test_zero_copy.py::test_a_received_frame_is_read_only",)),
    M("another actual_size", GUARDS, "        return self._frame.size\n", "        return self._frame.size + 1\n",
      ("test_zero_copy.py::test_the_published_example",)),
    M("another type_id", GUARDS, "        return self._frame.type_id\n", "        return 0\n",
      ("test_zero_copy.py::test_the_published_example",)),
    M("the frame is kept", GUARDS, "return <int>(bus.release(self._frame) if bus != NULL else Status.closed)",
      "return <int>Status.ok", ("test_zero_copy.py::test_leaving_the_block_frees_the_frame",
      "test_zero_copy.py::test_a_frame_is_freed_by_an_exception_and_by_being_dropped")),
    M("an exception keeps the frame", GUARDS, "            return\n        if self._views != 0:",
      "            return\n        if exc_type is not None:\n            return\n        if self._views != 0:",
      ("test_zero_copy.py::test_an_exception_gives_the_frame_back",)),
],
"drain_batch: a sequence of views with type_id, actual_size and the buffer protocol; exit frees all of them": [
    M("max_msgs is ignored", PYX, "while batch._frames.size() < limit and", "while True and",
      ("test_batch.py::test_it_takes_no_more_than_asked_for_and_the_rest_stays",
      "test_batch.py::test_the_default_takes_1024")),
    M("another default", PYX, "def drain_batch(self, max_msgs=1024,", "def drain_batch(self, max_msgs=1000,",
      ("test_batch.py::test_the_default_takes_1024",)),
    M("it takes one at a time", PYX, "while batch._frames.size() < limit and", "while False and",
      ("test_batch.py::test_it_is_a_sequence_of_views",)),
    M("its timeout is ignored", PYX, "expect_frame(self, &frame, deadline_after(timeout), min(looks, 1 << 20))",
      "deadline_after(timeout)\n        expect_frame(self, &frame, core.kNever, min(looks, 1 << 20))",
      ("test_batch.py::test_a_timeout_is_for_the_first_message",)),
    M("a view's type_id", GUARDS, "        view._type_id = self._frames[i].type_id\n", "",
      ("test_batch.py::test_it_is_a_sequence_of_views",)),
    M("a view's size", GUARDS, "        view._size = self._frames[i].size\n",
      "        view._size = self._frames[0].size\n", ("test_batch.py::test_it_is_a_sequence_of_views",)),
    M("its views can be written to", GUARDS, "        view._readonly = True\n", "",
      ("test_batch.py::test_the_views_are_read_only_and_aligned",)),
    M("no index from the end", GUARDS, "if not -count <= wanted < count:", "if not 0 <= wanted < count:",
      ("test_batch.py::test_it_is_a_sequence_of_views",)),
    M("another error beyond the end", GUARDS, "            raise IndexError(", "            raise ValueError(",
      ("test_batch.py::test_an_index_out_of_range",)),
    M("no slices", GUARDS, "for i in range(*index.indices(count))]", "for i in range(count)]",
      ("test_batch.py::test_slices",)),
    M("its length", GUARDS, "        return self._frames.size()\n", "        return self._frames.size() + 1\n",
      ("test_batch.py::test_it_is_a_sequence_of_views",)),
    M("exit keeps them", GUARDS, "                bus.release(self._frames[i])\n", "                pass\n",
      ("test_batch.py::test_leaving_the_block_shows_the_producer_its_room_at_once",
      "test_batch.py::test_a_whole_ring_can_be_held_at_once")),
    M("exit keeps all but the first", GUARDS, "            for i in range(self._frames.size()):\n                bus",
      "            for i in range(1):\n                bus",
      ("test_batch.py::test_leaving_it_in_another_way_does_so_too",)),
    M("exit frees them invisibly", GUARDS, "            bus.hand_back()\n        guard_ended(self._bus)",
      "        guard_ended(self._bus)", ("test_batch.py::test_leaving_the_block_shows_the_producer_its_room_at_once",)),
    M("dropping it keeps them", GUARDS, "    def __dealloc__(self):\n        self._end()\n",
      "    def __dealloc__(self):\n        pass\n",
      ("test_batch.py::test_leaving_it_in_another_way_does_so_too[dropped]",)),
],
"guards work with memoryview, np.frombuffer, DLPack and typed memoryviews": [
    M("no format", GUARDS, "self._payload, self._size, self._readonly, flags)\n",
      "self._payload, self._size, self._readonly, flags & ~4)\n",
      ("test_cimport.py::test_typed_memoryviews_over_guards",)),
    M("no views of an RxView", GUARDS, "        return self._batch._usable()\n", '        raise BusClosedError("no")\n',
      ("test_batch.py::test_it_is_a_sequence_of_views",
      "test_dlpack.py::test_numpy_takes_a_view_of_a_batch_read_only")),
    M("the read-only flag of a tensor", GUARDS, "versioned_capsule(self._payload, self._size, self._readonly,",
      "versioned_capsule(self._payload, self._size, False,",
      ("test_dlpack.py::test_numpy_takes_a_received_frame_read_only",
      "test_dlpack.py::test_numpy_takes_a_view_of_a_batch_read_only")),
    M("a claim's tensor is read-only", DLPACK, "made.managed.flags = 1 if readonly else 0", "made.managed.flags = 1",
      ("test_dlpack.py::test_numpy_writes_into_a_claim",)),
    M("a received frame goes to those who cannot see that it is read-only", GUARDS, "        elif self._readonly:",
      "        elif False:", ("test_dlpack.py::test_a_received_frame_has_no_old_form_which_could_not_say_read_only",)),
    M("no versioned form", GUARDS, "cdef bint versioned = max_version is not None and max_version[0] >= 1",
      "cdef bint versioned = False", ("test_dlpack.py::test_a_consumer_of_version_1_gets_the_versioned_form",)),
    M("no old form of a claim", GUARDS, "cdef bint versioned = max_version is not None and max_version[0] >= 1",
      "cdef bint versioned = True", ("test_dlpack.py::test_a_claim_has_the_old_form_too",)),
    M("another device", GUARDS, "        return 1, 0\n", "        return 2, 0\n",
      ("test_dlpack.py::test_the_device_is_the_cpu",)),
    M("a tensor's length", DLPACK, "    shape[0] = size\n", "    shape[0] = size - 1\n",
      ("test_dlpack.py::test_numpy_takes_a_received_frame_read_only",)),
    M("a stream is ignored", GUARDS, "        if stream is not None:\n", "        if False:\n",
      ("test_dlpack.py::test_what_cannot_be_done_is_a_buffer_error",)),
    M("a device is ignored", GUARDS, "if dl_device is not None and tuple(dl_device) != (1, 0):", "if False:",
      ("test_dlpack.py::test_what_cannot_be_done_is_a_buffer_error",)),
    M("a wish for a copy is ignored", GUARDS, "        if copy:\n", "        if False:\n",
      ("test_dlpack.py::test_what_cannot_be_done_is_a_buffer_error",)),
],
"a view that outlives its guard: a BufferError, and the frame stays held until it goes": [
    M("the frame is freed under it", GUARDS, "        if self._views != 0:\n", "        if False:\n",
      ("test_views.py::test_a_view_of_a_received_frame_holds_it",
      "test_views.py::test_a_view_of_a_claim_holds_it_and_then_it_is_given_back_unsent")),
    M("it is not told", GUARDS,
      "            self._leaving = True\n            if exc_type is None:\n                raise",
      "            self._leaving = True\n            if False:\n                raise",
      ("test_views.py::test_a_view_of_a_received_frame_holds_it",)),
    M("it takes the place of the block's own exception", GUARDS,
      "            self._leaving = True\n            if exc_type is None:\n                raise",
      "            self._leaving = True\n            if True:\n                raise",
      ("test_views.py::test_an_exception_in_the_block_is_the_one_that_is_seen",)),
    M("the frame is held for ever", GUARDS, "if self._views == 0 and self._leaving and self._open:", "if False:",
      ("test_views.py::test_a_view_of_a_received_frame_holds_it",)),
    M("the first of several views lets go", GUARDS, "if self._views == 0 and self._leaving and self._open:",
      "if self._leaving and self._open:", ("test_views.py::test_the_last_of_several_views_lets_go",)),
    M("a claim is sent when its view goes", GUARDS, "and self._leaving and self._open:\n            self._end(False)",
      "and self._leaving and self._open:\n            self._end(True)",
      ("test_views.py::test_a_view_of_a_claim_holds_it_and_then_it_is_given_back_unsent",)),
    M("a batch is freed under it", GUARDS,
      "        if self._views == 0:\n            self._end()\n            return\n",
      "        if True:\n            self._end()\n            return\n",
      ("test_views.py::test_a_view_of_a_batch_holds_all_of_it",)),
    M("a batch is held for ever", GUARDS, "        if self._views == 0 and self._leaving:\n            self._end()",
      "        if False:\n            self._end()", ("test_views.py::test_a_view_of_a_batch_holds_all_of_it",)),
    M("views of an RxView do not count", GUARDS, "        self._batch._views += 1\n",
      "        self._batch._views += 0\n", ("test_views.py::test_a_view_of_a_batch_holds_all_of_it",)),
    M("a tensor does not count", GUARDS, "        Py_INCREF(self)\n        self._view_made()\n        return capsule",
      "        Py_INCREF(self)\n        return capsule",
      ("test_views.py::test_a_view_of_a_received_frame_holds_it[dlpack]",
      "test_dlpack.py::test_a_capsule_that_nobody_took_is_a_view_until_it_is_dropped")),
    M("a tensor counts for ever", GUARDS,
      "cdef void drop_versioned(DLManagedTensorVersioned* managed) noexcept with gil:\n"
      "    window = <_Window>managed.context\n    PyMem_RawFree(managed)\n    window._view_gone()\n",
      "cdef void drop_versioned(DLManagedTensorVersioned* managed) noexcept with gil:\n"
      "    window = <_Window>managed.context\n    PyMem_RawFree(managed)\n",
      ("test_views.py::test_a_view_of_a_received_frame_holds_it[dlpack]",)),
    M("a tensor does not keep its guard", GUARDS,
      "        Py_INCREF(self)\n        self._view_made()\n        return capsule",
      "        self._view_made()\n        return capsule",
      ("test_dlpack.py::test_a_tensor_keeps_guard_bus_and_memory",)),
    M("a guard that is over makes views", GUARDS, "        if not self._open or self._leaving:\n"
      '            raise BusClosedError(f"this {type(self).__name__} is over',
      '        if False:\n            raise BusClosedError(f"this {type(self).__name__} is over',
      ("test_zero_copy.py::test_a_guard_serves_one_block_only",
      "test_views.py::test_a_view_of_a_received_frame_holds_it")),
    M("a batch that is over makes views", GUARDS,
      '        if not self._open or self._leaving:\n            raise BusClosedError("this RxBatchGuard',
      '        if False:\n            raise BusClosedError("this RxBatchGuard',
      ("test_batch.py::test_a_view_after_the_block_gives_nothing_out",)),
    M("a bus can be used beside an open guard", PYX, "self._core == NULL or self._guards != 0 or not tachyon_enter(",
      "self._core == NULL or not tachyon_enter(",
      ("test_zero_copy.py::test_every_other_use_while_a_guard_is_open_is_refused",)),
],
"the mapping lives as long as any view": [
    M("close unmaps under a view", PYX, "    if self._guards == 0 and tachyon_look(&self._closed) == 2:",
      "    if tachyon_look(&self._closed) == 2:", ("test_views.py::test_a_view_may_outlive_guard_and_bus",
      "test_views.py::test_the_mapping_lives_as_long_as_a_view",
      "test_zero_copy.py::test_closing_the_bus_within_a_receiving_block_is_fine")),
    M("it stays when the last view has gone", PYX,
      "    self._guards -= 1\n    if self._closing:\n        finish_close(self)", "    self._guards -= 1",
      ("test_views.py::test_the_mapping_goes_with_the_last_view_of_a_closed_bus",)),
    M("the collector takes a guard's bus first", GUARDS, "@cython.no_gc_clear\ncdef class _Window:",
      "cdef class _Window:",
      ("test_views.py::test_a_guard_in_a_reference_cycle_is_collected_without_a_crash[rx view]",), ((GUARDS,
      "@cython.no_gc_clear\ncdef class RxGuard(", "cdef class RxGuard("),)),
    M("the collector takes a batch's bus first", GUARDS, "@cython.no_gc_clear\ncdef class RxBatchGuard:",
      "cdef class RxBatchGuard:",
      ("test_views.py::test_a_guard_in_a_reference_cycle_is_collected_without_a_crash[batch iterator]",)),
],
"close: idempotent, never waits": [
    M("a second one raises", PYX,
      "        if self._core == NULL:\n            return\n        tachyon_set(<int*>&self._closing, True)\n",
      '        if self._core == NULL:\n            raise BusClosedError("closed")\n'
      '        tachyon_set(<int*>&self._closing, True)\n',
      ("test_recv.py::test_close_is_idempotent",)),
    M("it waits for whoever is in there", PYX,
      "        tachyon_set(<int*>&self._closing, True)\n",
      "        while not tachyon_enter(&self._in_use):\n            with nogil:\n                pass\n"
      "        tachyon_leave(&self._in_use)\n        tachyon_set(<int*>&self._closing, True)\n",
      ("test_threads.py::test_close_from_another_thread_ends_every_wait[recv-sleeping]",)),
    M("it does not tell the peer", CORE, "closed_->store(1, std::memory_order_release);  // [close]", "",
      ("test_peer_end.py::test_what_a_producer_sent_before_it_closed_is_delivered_then_iteration_stops",)),
    M("it keeps the descriptors", CORE,
      "    if (connection_.use_count() == 1) connection_->shut_down();\n    connection_.reset();",
      "    static auto* const kept = new std::shared_ptr<Connection>[100];\n    static int next = 0;\n"
      "    kept[next++ % 100] = connection_;\n    connection_.reset();",
      ("test_leaks.py::test_an_open_bus_costs_few_descriptors_and_one_mapping",)),
],
"closed, peer_pid, capacity, stats()": [
    M("closed after close()", PYX, "        if self._core == NULL or self._closing:\n            return True\n",
      "        if self._core == NULL or self._closing:\n            return False\n",
      ("test_recv.py::test_close_is_idempotent",)),
    M("closed before", PYX, "        return status == Status.closed or status == Status.forked\n",
      "        return True\n", ("test_recv.py::test_close_is_idempotent",)),
    M("peer_pid is ours", PYX, "bus._peer_pid = opened.peer_pid()", "bus._peer_pid = os.getpid()",
      ("test_open.py::test_the_peers_pid",)),
    M("another capacity", PYX, "bus._capacity = opened.capacity()", "bus._capacity = opened.capacity() + 64",
      ("test_capacity.py::test_both_sides_know_it",)),
    M("the role", PYX, 'return "producer" if stats.producer == stats.side else "consumer"',
      'return "consumer" if stats.producer == stats.side else "producer"',
      ("test_stats.py::test_both_sides_count_messages_and_bytes",)),
    M("a role before the first send", PYX, "    if stats.producer == Side.undecided:\n        return None\n", "",
      ("test_stats.py::test_the_keys",)),
    M("messages", PYX, '"messages": stats.messages', '"messages": 0',
      ("test_stats.py::test_both_sides_count_messages_and_bytes",)),
    M("position", PYX, '"position": stats.position', '"position": 0',
      ("test_stats.py::test_both_sides_count_messages_and_bytes",)),
    M("parks", PYX, '"parks": stats.parks', '"parks": 0', ("test_stats.py::test_parks_and_wakes_are_counted",)),
    M("wakes", PYX, '"wakes": stats.wakes', '"wakes": 0', ("test_stats.py::test_parks_and_wakes_are_counted",)),
    M("spin_budget_ns", PYX, '"spin_budget_ns": stats.spin_budget_ns', '"spin_budget_ns": 0',
      ("test_stats.py::test_a_spin_that_fails_costs_half_of_its_budget",)),
],
"with closes": [
    M("it does not", PYX, "    def __exit__(self, *exc_info):\n        self.close()",
      "    def __exit__(self, *exc_info):\n        pass",
      ("test_open.py::test_a_bus_is_a_context_manager_that_closes",)),
    M("a closed bus can be entered", PYX, "    def __enter__(self):\n        check_open(self)\n",
      "    def __enter__(self):\n", ("test_open.py::test_a_bus_is_a_context_manager_that_closes",)),
],
"close from another thread ends a wait with BusClosedError": [
    M("it is refused", PYX, "        tachyon_set(<int*>&self._closing, True)\n",
      "        if self._in_use:\n            refuse_use(self)\n        tachyon_set(<int*>&self._closing, True)\n",
      ("test_threads.py::test_close_from_another_thread_ends_every_wait",)),
    M("it is forgotten", PYX, "        tachyon_set(<int*>&self._closing, True)\n",
      "        if self._in_use:\n            return\n        tachyon_set(<int*>&self._closing, True)\n",
      ("test_threads.py::test_close_from_another_thread_ends_every_wait[recv-sleeping]",)),
    M("it only interrupts", PYX, "        tachyon_set(<int*>&self._closing, True)\n",
      "        if self._in_use:\n            tachyon_core(self._core).request_close()\n            return\n"
      "        tachyon_set(<int*>&self._closing, True)\n",
      ("test_threads.py::test_close_from_another_thread_ends_every_wait",)),
    M("a sender that waits does not see it", PYX,
      "    if self._closing:\n        status = Status.closed\n    if status == Status.full",
      "    if status == Status.full",
      ("test_threads.py::test_close_from_another_thread_ends_every_wait[send-sleeping]",), ((CORE,
      "    if (closing_.load(std::memory_order_relaxed)) return Status::closed;\n"
      "    if (status == Status::empty) {\n        last_check_ = 0;\n        return Status::full;",
      "    if (status == Status::empty) {\n        last_check_ = 0;\n        return Status::full;"), (CORE,
      "    if (closing_.load(std::memory_order_relaxed)) return Status::closed;\n    const Status status =\n",
      "    const Status status =\n"))),
    M("nobody finishes it", PYX,
      "    tachyon_leave(&self._in_use)\n    if self._closing:\n        finish_close(self)\n",
      "    tachyon_leave(&self._in_use)\n", ("test_threads.py::test_close_from_another_thread_ends_every_wait",)),
],
"flush, set_polling_mode, set_numa_node": [
    M("flush hands nothing back", PYX,
      "        tachyon_core(self._core).wake_consumer()\n        tachyon_core(self._core).hand_back()\n"
      "        leave(self)", "        tachyon_core(self._core).wake_consumer()\n        leave(self)",
      ("test_stats.py::test_flush_by_the_consumer_hands_back_what_it_has_read",)),
    M("flush leaves the bus busy", PYX, "tachyon_core(self._core).hand_back()\n        leave(self)",
      "tachyon_core(self._core).hand_back()", ("test_stats.py::test_flush_is_harmless_at_any_time",)),
    M("set_polling_mode does nothing", PYX, "        tachyon_core(self._core).set_polling_mode(wanted)\n", "",
      ("test_stats.py::test_a_polling_side_never_parks_and_stops_polling_when_told",)),
    M("polling cannot be ended", PYX, "set_polling_mode(wanted)", "set_polling_mode(True)",
      ("test_stats.py::test_a_polling_side_never_parks_and_stops_polling_when_told",)),
    M("set_numa_node asks nobody", PYX, "cdef int error = tachyon_core(self._core).set_numa_node(wanted)",
      "cdef int error = 0", ("test_stats.py::test_a_numa_node_that_is_missing_is_refused_with_its_number",)),
    M("any number is a node", PYX, "if not 0 <= number < 1024:", "if number < 0:",
      ("test_stats.py::test_a_numa_node_out_of_range_is_refused_with_its_number",)),
],
"the end: a close is told after what was sent has been delivered": [
    M("it comes first", CORE, "if (status == Status::ok) status = consumer_.peek(frame);",
      "if (status == Status::ok) status = Status::empty;",
      ("test_peer_end.py::test_a_last_message_is_never_lost_to_the_close_that_follows_it",)),
    M("an explicit receive does not say it", PYX,
      "        leave(self)\n        raise_status(self, Status.peer_closed, 0)\n    return 0",
      '        leave(self)\n        raise BusEmptyError("nothing")\n    return 0',
      ("test_peer_end.py::test_then_an_explicit_receive_says_closed",)),
    M("it looks like a death", CORE,
      "(status != Status::empty) return status;\n    return closed ? Status::peer_closed : Status::peer_dead;",
      "(status != Status::empty) return status;\n    return Status::peer_dead;",
      ("test_peer_end.py::test_then_an_explicit_receive_says_closed",
      "test_recv.py::test_iteration_waits_and_ends_with_the_producer")),
    M("it closes our own side", PYX, "    if status == Status.peer_closed:\n        raise",
      "    if status == Status.peer_closed:\n        self._closing = True\n        raise",
      ("test_peer_end.py::test_then_an_explicit_receive_says_closed",)),
],
"the end: a death is told after what was committed has been delivered": [
    M("it looks like a close", CORE,
      "(status != Status::empty) return status;\n    return closed ? Status::peer_closed : Status::peer_dead;",
      "(status != Status::empty) return status;\n    return Status::peer_closed;",
      ("test_peer_end.py::test_what_a_producer_committed_before_it_was_killed_is_delivered_then_the_death",
      "test_peer_end.py::test_iteration_ends_with_the_death")),
    M("it is not noticed", CORE, "const bool gone = connection_->hung_up();", "const bool gone = false;",
      ("test_peer_end.py::test_a_death_ends_a_wait",
      "test_peer_end.py::test_a_producer_whose_consumer_died_is_told_by_its_next_send")),
    M("it comes first", HEADERS,
      "        const Status status = consumer_.peek(frame);\n        return status == Status::ok ?",
      "        if (connection_->hung_up() && !peer_said_closed()) return Status::peer_dead;\n"
      "        const Status status = consumer_.peek(frame);\n        return status == Status::ok ?",
      ("test_peer_end.py::test_what_a_producer_committed_before_it_was_killed_is_delivered_then_the_death",
      "test_peer_end.py::test_a_batch_is_delivered_before_the_death",
      "test_kill.py::test_a_producer_killed_at_any_moment_loses_nothing_that_it_committed")),
],
"the end: a producer whose consumer is gone is told by its next send": [
    M("not of a close", HEADERS,
      "|| producer_.claim_open() ||\n            peer_closed_->load(std::memory_order_relaxed) != 0)",
      "|| producer_.claim_open())",
      ("test_peer_end.py::test_a_producer_whose_consumer_closed_is_told_by_its_next_send",)),
    M("not of a death", HEADERS, "if (ticks() - last_check_ > kTicksBetweenChecks) [[unlikely]]\n            return",
      "if (false) [[unlikely]]\n            return",
      ("test_peer_end.py::test_a_producer_whose_consumer_died_is_told_by_its_next_send",)),
    M("by a send whose message was read", CORE, "&& !producer_.all_read() ? Status::peer_dead", "? Status::peer_dead",
      ("test_peer_end.py::test_a_message_that_was_read_was_sent_even_if_the_consumer_then_dies",)),
    M("not while it waits for room", CORE,
      "    const Status status = check_consumer();\n    return status == Status::ok ? Status::full : status;",
      "    return Status::full;", ("test_peer_end.py::test_a_producer_that_waits_for_room_is_told_of_the_death",)),
],
"an idle, slow or stopped peer is never declared dead": [
    M("a stopped one is", CORE, "    if (!socket_) return true;\n", "    if (!socket_) return true;\n"
      '    if (std::FILE* file = std::fopen(("/proc/" + std::to_string(peer_pid_) + "/stat").c_str(), "r")) {\n'
      "        char text[256] = {};\n" "        const bool stopped = std::fgets(text, sizeof text, file) != nullptr && "
      'std::strstr(text, ") T ") != nullptr;\n        std::fclose(file);\n        if (stopped) return true;\n'
      "    }\n", ("test_peer_end.py::test_a_stopped_producer_is_never_declared_dead",
      "test_peer_end.py::test_a_stopped_consumer_is_never_declared_dead")),
    M("an idle one is", CORE, "    const bool gone = connection_->hung_up();\n",
      "    static int looks = 0;\n    const bool gone = connection_->hung_up() || ++looks > 8;\n",
      ("test_peer_end.py::test_an_idle_peer_is_never_declared_dead",)),
],
"Ctrl-C ends every blocking call": [
    M("not a receive", PYX, "                status = bus.wait_readable(deadline)\n            PyErr_CheckSignals()\n",
      "                status = bus.wait_readable(deadline)\n", ("test_signals.py::test_ctrl_c_ends_it[recv]",
      "test_signals.py::test_ctrl_c_ends_a_polling_wait[recv]")),
    M("not a send", PYX, "        status = bus.wait_writable(size, until)\n    PyErr_CheckSignals()\n",
      "        status = bus.wait_writable(size, until)\n", ("test_signals.py::test_ctrl_c_ends_it[send]",
      "test_signals.py::test_ctrl_c_ends_a_polling_wait[send]")),
    M("neither listen nor connect", SUPPORT, "        (<list><object>context).append(error)\n        return True",
      "        (<list><object>context).append(error)\n        return False",
      ("test_signals.py::test_ctrl_c_ends_it[listen]", "test_signals.py::test_ctrl_c_ends_it[connect]")),
    M("listen and connect raise something else", SUPPORT, "        return raised[0]\n",
      "        return TachyonError(text)\n", ("test_signals.py::test_ctrl_c_ends_it[listen]",
      "test_signals.py::test_ctrl_c_ends_it[connect]")),
    M("not a send_many that never waits", PYX, "if sent % 1024 == 0:", "if False:",
      ("test_signals.py::test_a_signal_ends_a_send_many_that_never_has_to_wait",)),
    M("the bus is busy afterwards", PYX,
      "    except BaseException:\n        leave(self)\n        raise\n    return <int>status",
      "    except TachyonError:\n        leave(self)\n        raise\n    return <int>status",
      ("test_signals.py::test_ctrl_c_ends_it[recv]",)),
],
"other signals run their handlers and the wait goes on": [
    M("they end a receive", PYX, "if status == Status.ok or status == Status.empty or status == Status.interrupted:",
      "if status == Status.ok or status == Status.empty:",
      ("test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[recv]",)),
    M("they end a send", PYX, "elif status != Status.ok and status != Status.interrupted:", "elif status != Status.ok:",
      ("test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[send]",)),
    M("they end listen", CORE,
      "::epoll_wait(epoll_.get(), &event, 1, poll_timeout(std::min(deadline, next_deadline())));",
      "if (::epoll_wait(epoll_.get(), &event, 1, poll_timeout(std::min(deadline, next_deadline()))) < 0) "
      "throw_interrupted();",
      ("test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[listen]",)),
    M("they end connect", CORE, "    ::nanosleep(&time, nullptr);\n}",
      "    if (::nanosleep(&time, nullptr) != 0) throw_interrupted();\n}",
      ("test_signals.py::test_other_signals_run_their_handlers_and_the_wait_goes_on[connect]",)),
    M("their handlers do not run in listen and connect", SUPPORT, "        PyErr_CheckSignals()\n", "        pass\n",
      ("test_signals.py::test_the_exception_of_another_handler_comes_out",)),
    M("a handler may use the bus that it interrupted", PYX,
      "self._core == NULL or self._guards != 0 or not tachyon_enter(&self._in_use):",
      "self._core == NULL or self._guards != 0 or tachyon_enter(&self._in_use) > 1:",
      ("test_signals.py::test_a_handler_that_uses_the_bus_it_interrupted_is_refused",)),
],
"one thread per direction: misuse raises BusBusyError and never corrupts": [
    M("a second thread gets in", PYX,
      "static inline int tachyon_enter(int* flag) { return *flag == 0 ? (*flag = 1) : 0; }",
      "static inline int tachyon_enter(int* flag) { return (*flag = 1); }",
      ("test_threads.py::test_a_second_thread_is_refused_and_the_first_goes_on",)),
    M("it is another error", PYX, '    raise BusBusyError(\n        "this bus is in use',
      '    raise TachyonError(\n        "this bus is in use',
      ("test_threads.py::test_a_second_thread_is_refused_and_the_first_goes_on",)),
    M("the first one is thrown out", PYX, '    raise BusBusyError(\n        "this bus is in use',
      '    self._closing = True\n    raise BusBusyError(\n        "this bus is in use',
      ("test_threads.py::test_a_second_thread_is_refused_and_the_first_goes_on",)),
    M("others cannot run meanwhile", PYX,
      "            with nogil:\n                status = bus.wait_readable(deadline)\n",
      "            status = bus.wait_readable(deadline)\n",
      ("test_signals.py::test_a_signal_in_a_process_whose_main_thread_is_elsewhere_ends_nothing",)),
],
"not picklable, not copyable": [
    M("a Bus is", PYX, '    def __reduce__(self):\n        raise TypeError("a Bus',
      '    def __reduce__(self):\n        return object, ()\n        raise TypeError("a Bus',
      ("test_zero_copy.py::test_nothing_that_is_open_can_be_copied_or_pickled",)),
    M("a guard is", GUARDS, '    def __reduce__(self):\n        raise TypeError(f"a {type(self)',
      '    def __reduce__(self):\n        return object, ()\n        raise TypeError(f"a {type(self)',
      ("test_zero_copy.py::test_nothing_that_is_open_can_be_copied_or_pickled",)),
    M("a batch is", GUARDS, '    def __reduce__(self):\n        raise TypeError("an RxBatchGuard',
      '    def __reduce__(self):\n        return object, ()\n        raise TypeError("an RxBatchGuard',
      ("test_zero_copy.py::test_nothing_that_is_open_can_be_copied_or_pickled",)),
],
"a forked child gets BusClosedError, and its descriptors hide no death": [
    M("it may go on", CORE, "::pthread_atfork(ForkList::before, ForkList::after_in_parent, ForkList::after_in_child);",
      "0;",
      ("test_fork.py::test_every_use_in_the_child_is_refused_and_the_parents_bus_is_unharmed",
      "test_fork.py::test_a_fork_while_other_threads_wait_harms_nobody")),
    M("it gets another error", PYX, "    if status == Status.forked:\n        raise BusClosedError(",
      "    if status == Status.forked:\n        raise BusBusyError(",
      ("test_fork.py::test_every_use_in_the_child_is_refused_and_the_parents_bus_is_unharmed",)),
    M("its bus is not closed", PYX, "return status == Status.closed or status == Status.forked\n",
      "return status == Status.closed\n",
      ("test_fork.py::test_every_use_in_the_child_is_refused_and_the_parents_bus_is_unharmed",)),
    M("its close() is its parent's", CORE, "if (mode == Mode::closed || mode == Mode::forked) return;",
      "if (mode == Mode::closed) return;",
      ("test_fork.py::test_every_use_in_the_child_is_refused_and_the_parents_bus_is_unharmed",)),
    M("it shuts its parent's socket down", CORE,
      "    mode_.store(Mode::forked, std::memory_order_relaxed);\n    connection_->abandon();",
      "    mode_.store(Mode::forked, std::memory_order_relaxed);\n    connection_->shut_down();",
      ("test_fork.py::test_the_end_of_a_forked_child_is_not_the_end_of_the_bus",)),
    M("it hides its parent's death", CORE, "{process_.get(), POLLIN, 0}", "{-1, POLLIN, 0}",
      ("test_fork.py::test_a_parents_death_is_seen_though_its_forked_child_lives[producer-_Fork]",
      "test_fork.py::test_a_parents_death_is_seen_though_its_forked_child_lives[consumer-_Fork]")),
    M("both of what guards against that", CORE, "{process_.get(), POLLIN, 0}", "{-1, POLLIN, 0}",
      ("test_fork.py::test_a_parents_death_is_seen_though_its_forked_child_lives[producer-os.fork]",), ((CORE,
      "    mode_.store(Mode::forked, std::memory_order_relaxed);\n    connection_->abandon();",
      "    mode_.store(Mode::forked, std::memory_order_relaxed);"),)),
],
"reentrancy: code of the caller's that runs in the middle of a call breaks nothing": [
    M("a truth that raises leaves the bus busy", PYX,
      "        cdef cpp_bool wanted = bool(pure_spin)  # may raise: before enter\n        check_open(self)\n"
      "        enter(self)\n",
      "        check_open(self)\n        enter(self)\n        cdef cpp_bool wanted = bool(pure_spin)\n",
      ("test_reentrancy.py::test_a_polling_mode_whose_truth_raises_leaves_the_bus_usable",)),
    M("a block left by __dlpack__'s arguments", GUARDS,
      "        cdef bint versioned = max_version is not None and max_version[0] >= 1\n"
      "        self._usable()  # last: the arguments may run code that leaves the block\n",
      "        self._usable()\n        cdef bint versioned = max_version is not None and max_version[0] >= 1\n",
      ("test_reentrancy.py::test_dlpack_arguments_that_leave_the_block_get_no_tensor",)),
    M("set-up swallows the end of its thread", PYX,
      "        } catch (const std::exception& error) {\n            outcome.what = error.what();\n        }",
      '        } catch (...) {\n            outcome.what = "unknown";\n        }',
      ("test_reentrancy.py::test_a_daemon_thread_in_set_up_does_not_abort_the_exit",)),
    M("an id is chosen before the arguments are looked at", RPC_BUS,
      "    origin.correlation_id = 0  # begin_origin gives it one\n",
      "    origin.correlation_id = rpc_caller(self).next_id()\n",
      ("test_reentrancy.py::test_a_timeout_that_calls_gets_an_id_of_its_own",), ((PYX,
      "        origin.correlation_id = origin.caller.next_id()\n", "        pass\n"),)),
    M("an RpcBus that was never opened", PYX, "    if self is None:  # of an RpcBus made by __new__\n",
      "    if False:\n", ("test_reentrancy.py::test_an_rpc_bus_that_was_never_opened_says_so",)),
    M("the closed of an RpcBus that was never opened", RPC_BUS, "return self._calls is None or self._calls.closed",
      "return self._calls.closed", ("test_reentrancy.py::test_an_rpc_bus_that_was_never_opened_says_so",)),
    M("a caller that goes before its answer", DISPATCHER,
      "            except PeerClosedError:\n                return\n            except PeerDeadError as error:\n"
      '                log.warning("%s", error)\n                return\n', "",
      ("test_reentrancy.py::test_a_caller_that_goes_before_its_answer_ends_the_loop_quietly",)),
    M("a caller that goes before its answer is warned of", DISPATCHER,
      "            except PeerClosedError:\n                return\n", "",
      ("test_reentrancy.py::test_a_caller_that_goes_before_its_answer_ends_the_loop_quietly",)),
    M("only the last of a chain of failures lets go", DISPATCHER,
      '        todo += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]\n', "",
      ("test_reentrancy.py::test_a_chained_failure_frees_the_request",)),
    M("a failure that cannot be printed", DISPATCHER, "    except Exception:\n        return type(failure).__name__",
      "    except ValueError:\n        return type(failure).__name__",
      ("test_reentrancy.py::test_a_failure_that_cannot_be_printed_is_answered",)),
    M("a type_id beyond a msg_type", RPC, "msg_type & 0xFFFF)", "msg_type)",
      ("test_reentrancy.py::test_a_type_id_beyond_a_msg_type_is_answered",)),
    M("an endpoint takes another's msg_type over", RPC,
      "        self.handler = handler\n        self.msg_type = number\n",
      "        self.handler = handler\n        self.msg_type = number\n"
      "        functools.update_wrapper(self, handler)\n",
      ("test_reentrancy.py::test_an_endpoint_keeps_its_own_msg_type",)),
    M("Ctrl-C while a reply waits for room", EXCHANGE, "except (PeerDeadError, BusClosedError, KeyboardInterrupt):",
      "except (PeerDeadError, BusClosedError):",
      ("test_dispatcher.py::test_ctrl_c_while_a_reply_waits_for_room_ends_the_loop",)),
],
}
MUTANTS = [dataclasses.replace(mutant, promise=promise) for promise, mutants in PROMISES.items() for mutant in mutants]


def stop(message):
    print(f"mutants.py: {message}", file=sys.stderr)
    sys.exit(2)


def the_file(root, mutant, pattern, old):
    """The one file of the pattern that has the text, once."""
    found = {path: path.read_text().count(old) for path in sorted(root.glob(pattern))}
    times = sum(found.values())
    if times != 1:
        stop(f"the mutation “{mutant.promise}: {mutant.name}” applies {times} times to {pattern}, not once; adapt it "
             f"to the new code: {old!r}")
    return next(path for path, count in found.items() if count)


class Tree:
    """A copy of the project with its extension built in place, quickly, and at most one mutation at a time."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        for part in ("CMakeLists.txt", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
            shutil.copy(ROOT / part, self.folder / part)
        rest = shutil.ignore_patterns("build", "__pycache__", "*.so", "_tachyon.cpp", "*.html")
        for part in ("cmake", "cxx", "tachyon", "tests"):
            shutil.copytree(ROOT / part, self.folder / part, ignore=rest)
        self.replace("setup.py", '"-O3", "-Wall", "-Wextra"', '"-O0", "-g0"')
        self.replace("setup.py", '"-DCMAKE_BUILD_TYPE=Release"',
                     '"-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"')
        failure = self.build()
        if failure:
            stop(f"the tree as it is does not build:\n{failure}")
        self.pristine = {path: path.read_bytes() for path in self.folder.glob("tachyon/_tachyon.*.so")}
        self.environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1",
                            "TACHYON_TEST_PATIENCE": str(PATIENCE)}
        code = "import pathlib, tachyon; print(pathlib.Path(tachyon.__file__).parents[1])"
        found = subprocess.run([sys.executable, "-c", code], cwd=self.folder / "tests", env=self.environment,
                               capture_output=True, text=True, check=False).stdout.strip()
        if pathlib.Path(found or "nowhere").resolve() != self.folder.resolve():
            stop(f"the tests would use {found or 'nothing'}, not the copy in {self.folder}")

    def replace(self, file, old, new):
        path = self.folder / file
        text = path.read_text()
        if text.count(old) != 1:
            stop(f"{file} has changed: {old} is there {text.count(old)} times, not once")
        path.write_text(text.replace(old, new))

    def build(self):
        """None, or what the build said."""
        done = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=self.folder,
                              env={**os.environ, "TACHYON_WERROR": "0"}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        return done.stdout if done.returncode != 0 else None

    def mutate(self, mutant):
        """Apply and build. Returns the originals, and what the build said if it failed."""
        originals = {}
        for pattern, old, new in mutant.edits():
            path = the_file(self.folder, mutant, pattern, old)
            text = path.read_text()
            originals.setdefault(path, text)
            path.write_text(text.replace(old, new))
        if any(path.suffix != ".py" for path in originals):
            return originals, self.build()
        return originals, None

    def restore(self, originals):
        for path, text in originals.items():
            path.write_text(text)
        for path, data in self.pristine.items():
            path.unlink()  # not over it: a process may still have it mapped
            path.write_bytes(data)
            path.chmod(0o755)

    def run(self, *tests):
        """(None if they pass, else how they failed; whether that counts)."""
        command = [sys.executable, "-m", "pytest", "-v", "-x", "--tb=line", "-p", "no:cacheprovider",
                   f"--timeout={WATCHDOG}", *(f"tests/{test}" for test in tests)]

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        # Its own session: what a test leaves behind is killed with it, and nothing else is.
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
                                   start_new_session=True, preexec_fn=limit)
        limit_of_all = TIME_LIMIT if len(tests) == 1 else 20 * TIME_LIMIT
        hung = False
        try:
            output, _ = process.communicate(timeout=limit_of_all)
        except subprocess.TimeoutExpired:
            hung = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if hung:
            output, _ = process.communicate()
            return f"{last_test(output)}: hangs, and its watchdog did not end it", False
        if process.returncode in (4, 5) or "no tests ran" in output:
            stop(f"pytest finds no such test: {' '.join(tests)}\n{output}")
        if process.returncode == 0:
            if re.search(r"\d+ skipped", output) and not re.search(r"\d+ passed", output):
                return f"{' '.join(tests)} was skipped", False
            return None, False
        if "+ Timeout +" in output:
            return f"{last_test(output)}: hangs; the watchdog ended it", True
        if process.returncode < 0 or process.returncode > 128:
            number = -process.returncode if process.returncode < 0 else process.returncode - 128
            return f"{last_test(output)}: crashes ({signal.Signals(number).name})", True
        failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", output, re.MULTILINE)
        return failed.group(1) if failed else f"exit status {process.returncode}: {output[-300:]}", True


def last_test(output):
    names = re.findall(r"^tests/(\S+::.+?)(?= (?:PASSED|FAILED|SKIPPED|ERROR)|\s*$|\s*\+)", output, re.MULTILINE)
    return names[-1] if names else "?"


def trial(tree, mutant):
    """(verdict, how): each of its tests has to fail."""
    originals, failure = tree.mutate(mutant)
    try:
        if failure:
            print(failure, file=sys.stderr)
            return "NO BUILD", [failure.strip().splitlines()[-1]]
        how, survived = [], []
        for test in mutant.tests:
            failure, counts = tree.run(test)
            how.append(failure or test)
            if not counts:
                survived.append(failure or f"{test} passes")
        return ("SURVIVED", survived) if survived else ("killed", how)
    finally:
        tree.restore(originals)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names or promises of mutants to try; default: all")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--keep", help="work in this folder and leave it there")
    arguments = parser.parse_args()

    for mutant in MUTANTS:  # all of them, whichever are asked for
        for pattern, old, _ in mutant.edits():
            the_file(ROOT, mutant, pattern, old)
    chosen = [m for m in MUTANTS if not arguments.names or any(n in f"{m.promise}: {m.name}" for n in arguments.names)]
    if arguments.list:
        print("\n".join(f"{m.promise}: {m.name}" for m in chosen))
        return 0
    if not chosen:
        stop("no such mutant")

    verdicts = []
    with tempfile.TemporaryDirectory(prefix="tachyon-mutants-") as temporary:
        if arguments.keep:
            pathlib.Path(arguments.keep).mkdir(parents=True)
        tree = Tree(arguments.keep or temporary)
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        failure, _ = tree.run(*tests)
        if failure is not None:
            stop(f"the tree as it is fails: {failure}")
        print(f"the tree as it is passes {len(tests)} selections of tests", flush=True)
        promise = None
        for mutant in chosen:
            if mutant.promise != promise:
                promise = mutant.promise
                print(f"\n{promise}", flush=True)
            start = time.monotonic()
            verdict, how = trial(tree, mutant)
            verdicts.append(verdict)
            print(f"  {verdict:8}  {mutant.name:55}  {time.monotonic() - start:4.0f} s  {how[0]}", flush=True)
            for more in how[1:]:
                print(f"{'':77}{more}", flush=True)
    print(f"\n{verdicts.count('killed')} of {len(chosen)} killed")
    return 2 if "NO BUILD" in verdicts else 1 if "SURVIVED" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
