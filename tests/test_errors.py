"""The tree of errors: what derives from what, what they carry, and that they survive pickling."""

import copy
import pickle
import queue

import pytest

import tachyon

TREE = {
    tachyon.TachyonError: (Exception,),
    tachyon.HandshakeError: (tachyon.TachyonError, ConnectionError, OSError),
    tachyon.PeerDeadError: (tachyon.TachyonError, ConnectionError),
    tachyon.PeerClosedError: (tachyon.PeerDeadError, EOFError),
    tachyon.TachyonTimeoutError: (tachyon.TachyonError, TimeoutError),
    tachyon.BusFullError: (tachyon.TachyonTimeoutError, queue.Full),
    tachyon.BusEmptyError: (tachyon.TachyonTimeoutError, queue.Empty),
    tachyon.BusClosedError: (tachyon.TachyonError, ValueError),
    tachyon.MessageTooLargeError: (tachyon.TachyonError, ValueError),
    tachyon.CapacityError: (tachyon.TachyonError, ValueError),
    tachyon.BusBusyError: (tachyon.TachyonError, RuntimeError),
    tachyon.ArrayError: (tachyon.TachyonError, ValueError),
    tachyon.RpcError: (tachyon.TachyonError,),
    tachyon.CodecError: (tachyon.TachyonError, ValueError),
}
EVERY = pytest.mark.parametrize("error_class", TREE, ids=lambda each: each.__name__)


@EVERY
def test_each_error_is_what_the_documents_say(error_class):
    for base in TREE[error_class]:
        assert issubclass(error_class, base)


def test_the_tree_has_no_other_edges():
    ours = set(TREE)
    for error_class, bases in TREE.items():
        expected = {error_class}
        for base in bases:
            expected |= {each for each in base.__mro__ if each in ours}
        assert {each for each in error_class.__mro__ if each in ours} == expected


def test_every_exception_of_the_package_is_in_the_tree():
    exported = [getattr(tachyon, name) for name in tachyon.__all__]
    assert {each for each in exported if isinstance(each, type) and issubclass(each, BaseException)} == set(TREE)


@EVERY
@pytest.mark.parametrize("clone", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
def test_each_error_survives_a_copy(error_class, clone):
    error = error_class("what happened, 42")
    again = clone(error)
    assert type(again) is error_class
    assert str(again) == "what happened, 42"
    assert again.args == error.args


def test_a_handshake_error_keeps_number_and_path_through_pickle():
    error = tachyon.HandshakeError("no listener at /tmp/x", 111, "/tmp/x")
    assert (str(error), error.errno, error.path) == ("no listener at /tmp/x", 111, "/tmp/x")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.errno, again.path) == (tachyon.HandshakeError, str(error), 111, "/tmp/x")


def test_an_rpc_error_keeps_type_and_detail_through_pickle():
    error = tachyon.RpcError("call 7 failed", 7, "ValueError: x")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.msg_type, again.detail) == ("call 7 failed", 7, "ValueError: x")
    assert tachyon.RpcError("x").msg_type is None
    assert tachyon.RpcError("x").detail is None


def test_a_codec_error_keeps_both_names_and_the_message_through_pickle():
    error = tachyon.CodecError("written by b", "a", "b")
    assert error.message is None
    error.message = tachyon.Message(1, 1, b"x")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.codec, again.found, again.message) == ("written by b", "a", "b", error.message)


def test_the_reason_of_a_dead_peer():
    assert tachyon.PeerDeadError().reason == "died"
    assert tachyon.PeerClosedError().reason == "closed"
    error = tachyon.PeerDeadError("corrupt")
    error.reason = "corrupt"
    assert pickle.loads(pickle.dumps(error)).reason == "corrupt"


def test_the_count_of_a_full_bus_survives_pickle():
    assert tachyon.BusFullError().sent == 0
    error = tachyon.BusFullError("full")
    error.sent = 3
    assert pickle.loads(pickle.dumps(error)).sent == 3
