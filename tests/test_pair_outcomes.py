"""What becomes of an end whose other one is not used, or used twice, or whose processes die at the wrong moment."""

import copy
import gc
import multiprocessing
import os
import pickle
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pair_workers
import pytest
from pair_children import PATIENCE, by_every_method

import tachyon

TESTS = str(Path(__file__).parent)


# ---- unused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_an_end_that_is_given_up_unused_tells_the_other_one(which, how):
    both = list(tachyon.pair(4096))
    end, other = both.pop(which), both.pop()
    assert end.try_open() is None
    if how == "closed":
        other.close()
        assert other.closed
    del other
    with pytest.raises(tachyon.HandshakeError, match="nobody holds the other end any more"):
        end.open(timeout=PATIENCE)
    with pytest.raises(tachyon.BusClosedError, match="make a new pair"):
        end.open(timeout=PATIENCE)
    assert end.closed


def test_a_pipe_whose_other_end_is_dropped_says_so():
    here, there = tachyon.pipe()
    there.close()
    with pytest.raises(tachyon.HandshakeError, match="nobody holds the other end"):
        here.recv(timeout=PATIENCE)
    here, there = tachyon.pipe()
    del there
    with pytest.raises(tachyon.HandshakeError, match="nobody holds the other end"):
        here.send(b"abc")


@by_every_method
def test_a_child_that_ends_without_opening_is_noticed_while_the_maker_keeps_its_copy(method, start):
    for function in (pair_workers.end_at_once, pair_workers.wait_for_the_end):
        producer, consumer = tachyon.pair(4096)
        child = start(method, function, producer)
        if function is pair_workers.wait_for_the_end:
            assert consumer.try_open() is None
            child.kill()
        with pytest.raises(tachyon.HandshakeError, match="nobody holds the other end any more"):
            consumer.open(timeout=PATIENCE)
        with pytest.raises(tachyon.BusClosedError, match="has opened the other end"):
            producer.open(timeout=PATIENCE)


def test_a_child_that_cannot_be_started_is_noticed(start, monkeypatch):
    producer, consumer = tachyon.pair(4096)
    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", lambda *_: (_ for _ in ()).throw(OSError("no more")))
    with pytest.raises(OSError, match="no more"):
        start("spawn", pair_workers.produce, producer, 1)
    gc.collect()
    with pytest.raises(tachyon.HandshakeError, match="nobody holds the other end any more"):
        consumer.open(timeout=PATIENCE)


def test_two_children_of_which_one_never_comes(start, note):
    producer, consumer = tachyon.pair(4096)
    waiting = start("fork", pair_workers.open_and_say, consumer, note.path())
    other = start("spawn", pair_workers.wait_for_the_end, producer)
    producer.close()
    consumer.close()
    other.kill()
    assert note().startswith("undone nobody holds the other end")
    waiting.join(PATIENCE)
    assert waiting.exitcode == pair_workers.UNDONE


# ---- twice --------------------------------------------------------------------------------------------------------


def test_an_end_is_used_once(run_thread):
    producer, consumer = tachyon.pair(4096)
    opening = run_thread(producer.open, timeout=PATIENCE)
    with consumer as bus:
        assert bus.peer_pid == os.getpid()
        with opening.result(PATIENCE):
            for end in (producer, consumer):
                assert end.closed
                with pytest.raises(tachyon.BusClosedError, match="used once"):
                    end.open()
                with pytest.raises(tachyon.BusClosedError, match="used once"):
                    end.try_open()
                with pytest.raises(tachyon.BusClosedError, match="used once"), end:
                    pass
                end.close()
        assert not bus.closed


@by_every_method
def test_of_two_children_with_the_same_end_one_opens_it(method, start, note, until):
    producer, consumer = tachyon.pair(4096)
    children = [start(method, pair_workers.open_and_say, producer, note.path(str(i))) for i in range(2)]
    with consumer.open(timeout=PATIENCE) as bus:
        said = sorted(note(str(i)) for i in range(2))
        assert said[0].startswith("closed this end has been taken already")
        assert said[1] == f"open {os.getpid()}"
        with pytest.raises(tachyon.PeerClosedError):
            bus.recv(timeout=PATIENCE)
    for child in children:
        child.join(PATIENCE)
    assert sorted(child.exitcode for child in children) == [0, pair_workers.REFUSED]


def test_an_end_in_use_is_not_handed_over(start):
    producer, _consumer = tachyon.pair(4096)
    assert producer.try_open() is None
    with pytest.raises(tachyon.BusClosedError, match="in use here; hand it over before"):
        start("spawn", pair_workers.produce, producer, 1)


def test_an_end_that_was_closed_is_closed_over_there(start, note):
    producer, _consumer = tachyon.pair(4096)
    producer.close()
    start("spawn", pair_workers.open_and_say, producer, note.path())
    assert note() == "closed this end is closed; make a new pair"


# ---- elsewhere ----------------------------------------------------------------------------------------------------


def every_end():
    return [tachyon.pair(4096)[0], tachyon.rpc_pair()[1], tachyon.pipe()[0]]


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_end_pickled_elsewhere_says_what_to_do(way):
    for end in every_end():
        with pytest.raises(TypeError, match="only into a process that is being started: pass it in args of a Process"):
            way(end)
        assert type(end).__name__ in repr(end)


def test_an_end_sent_to_a_worker_that_runs_already_says_what_to_do():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for end in every_end():
            with pytest.raises(TypeError, match="or in initargs of a ProcessPoolExecutor"):
                pool.submit(pair_workers.end_at_once, end).result(PATIENCE)


def test_ends_are_made_by_functions_only():
    for cls in (tachyon.BusEnd, tachyon.RpcEnd):
        with pytest.raises(TypeError, match="made by"):
            cls()
        with pytest.raises(OSError, match="Bad file"):
            cls.from_fileno(987)
        made = cls.__new__(cls)
        assert made.closed
        with pytest.raises(tachyon.BusClosedError):
            made.open()


def test_what_is_no_end_is_refused(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        end = tachyon.BusEnd.from_fileno(os.dup(file.fileno()))
    with pytest.raises(tachyon.HandshakeError, match="not that of an end"):
        end.open()
    caller, _callee = tachyon.rpc_pair()
    end = tachyon.BusEnd.from_fileno(os.dup(caller.fileno()))
    with pytest.raises(tachyon.HandshakeError, match="of another class"):
        end.open()


# ---- deaths -------------------------------------------------------------------------------------------------------

MAKER = f"""
import multiprocessing, os, sys
sys.path.insert(0, {TESTS!r})
import pair_workers
if __name__ == "__main__":
    method, then, note = sys.argv[1:]
    producer, consumer = tachyon.pair(4096)
    context = multiprocessing.get_context(method)
    child = context.Process(target=pair_workers.open_and_say, args=(consumer, note, "stay"))
    child.start()
    stray = os.fork()  # with copies of all that is here
    if stray == 0:
        time.sleep(90)
        os._exit(0)
    say(child.pid)
    say(stray)
    if then == "open":
        bus = producer.open(timeout=60)
        say("open")
    hear()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("then", ["open", "wait"])
def test_a_maker_that_is_killed_is_noticed_whoever_was_forked_from_it(method, then, spawn, note):
    maker = spawn(MAKER, method, then, note.path())
    child, stray = int(maker.line()), int(maker.line())
    try:
        if then == "open":
            maker.says("open")
            assert note() == f"open {maker.pid}"
            Path(note.path()).unlink()
            maker.kill()
            assert note().startswith(f"died the peer (pid {maker.pid})")
        else:
            maker.kill()  # the child is on its way, or waits
            assert note().startswith("undone the process that made this end has died")
    finally:
        for pid in (child, stray):
            os.kill(pid, signal.SIGKILL)


@by_every_method
def test_a_child_that_is_killed_after_it_opened_is_noticed(method, start):
    producer, consumer = tachyon.pair(4096)
    child = start(method, pair_workers.produce, producer, 10**9)
    stray = start("fork", pair_workers.wait_for_the_end)
    with consumer.open(timeout=PATIENCE) as bus:
        bus.recv(timeout=PATIENCE)
        child.kill()
        with pytest.raises(tachyon.PeerDeadError, match=f"pid {child.pid}.* died"):
            while True:
                bus.recv(timeout=PATIENCE)
    assert stray.is_alive()


def test_a_forked_child_of_who_uses_an_end_cannot_use_it(spawn):
    code = """
    def attempt(*calls):
        for call in calls:
            try: call()
            except tachyon.BusClosedError as error: say(str(error)[:44])
    producer, consumer = tachyon.pair(4096)
    here, there = tachyon.pipe()
    assert consumer.try_open() is None and here.try_recv() is None
    told, tell = os.pipe()
    if os.fork() == 0:
        assert consumer.closed and here.closed
        attempt(consumer.open, consumer.try_open, here.recv, here.try_recv)
        producer.close()
        there.close()
        os.write(tell, b"x")
        hear()
        os._exit(0)
    os.read(told, 1)
    producer.close()
    there.close()
    for call in (consumer.open, here.recv):
        try: call()
        except tachyon.HandshakeError as error: say(str(error)[:44])
    os.wait()
    """
    child = spawn(code)
    child.says(*4 * ["this end is being opened by the parent of th"])
    child.says(*2 * ["nobody holds the other end any more: it was "])  # although that one lives
    child.tell()
    child.ends()
