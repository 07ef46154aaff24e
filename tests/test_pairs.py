"""Ends that one process makes and others use: pair, pipe and rpc_pair, by every start method."""

import multiprocessing
import os
import selectors
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pair_workers
import pytest
from pair_children import PATIENCE, by_every_method

import tachyon


def ends(*processes, code=0):
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == code


@by_every_method
def test_both_ends_go_to_children(method, start):
    producer, consumer = tachyon.pair(4096)
    children = [start(method, pair_workers.produce, producer, 500), start(method, pair_workers.consume, consumer, 500)]
    ends(*children)


@by_every_method
def test_one_end_stays_with_the_maker(method, start):
    producer, consumer = tachyon.pair(4096)
    child = start(method, pair_workers.produce, producer, 500)
    with consumer as bus:
        assert bus.peer_pid == child.pid
        assert bus.capacity == 4096
        assert [msg.type_id for msg in bus] == list(range(500))
    ends(child)


@by_every_method
def test_a_pipe_goes_both_ways(method, start):
    here, there = tachyon.pipe(1 << 16)
    child = start(method, pair_workers.echo, there)
    with here:
        here.send(b"abc", 7, timeout=PATIENCE)
        assert tuple(here.recv(timeout=PATIENCE)) == (7, 3, b"cba")
        assert here.peer_pid == child.pid
        assert here.send_many([b"12", (b"34", 5)]) == 2
        with here.recv_zero_copy(timeout=PATIENCE) as rx:
            assert bytes(rx) == b"21"
        buffer = bytearray(8)
        assert here.recv_into(buffer, timeout=PATIENCE) == (2, 5)
        with here.send_zero_copy(3) as tx, memoryview(tx) as view:
            view[:] = b"xyz"
        assert next(here).data == b"zyx"
        assert here.tx is not here.rx
        with pytest.raises(tachyon.BusEmptyError):
            here.recv(timeout=0.01)
        assert here.try_recv() is None
        assert here.try_send(b"last")
        assert here.recv(timeout=PATIENCE).data == b"tsal"
    assert here.closed
    ends(child)


@by_every_method
def test_a_pipe_ends_like_a_bus(method, start):
    here, there = tachyon.pipe()
    child = start(method, pair_workers.echo, there)
    here.send(b"abc", timeout=PATIENCE)
    child.kill()
    with pytest.raises(tachyon.PeerDeadError, match="died"):
        for _ in range(2):
            here.recv(timeout=PATIENCE)


@by_every_method
def test_calls_go_to_a_child_and_come_from_one(method, start):
    caller, callee = tachyon.rpc_pair(4096, 8192)
    child = start(method, pair_workers.serve, callee)
    with caller as bus:
        assert tachyon.RpcEndpoint(1).call(bus, b"abc", timeout=PATIENCE) == b"cba"
        assert (bus.max_request_size, bus.max_reply_size) == (4096 - 16, 8192 - 16)
    ends(child)
    caller, callee = tachyon.rpc_pair()
    child = start(method, pair_workers.call, caller, b"12345")
    with callee as bus, bus.serve(timeout=PATIENCE) as rx:
        bus.reply(rx.correlation_id, bytes(rx)[::-1])
        with pytest.raises(tachyon.PeerClosedError):
            bus.serve(timeout=PATIENCE)
    ends(child)


def read_all(consumer):
    """Who sent, and what; None where nobody came."""
    try:
        with consumer.open(timeout=PATIENCE) as bus:
            return bus.peer_pid, [msg.type_id for msg in bus]
    except tachyon.HandshakeError:
        return None


@by_every_method
def test_workers_of_a_pool_take_an_end_each(method):
    pairs = [tachyon.pair(4096) for _ in range(3)]
    offered = [producer for producer, _ in pairs]
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(3, context, initializer=pair_workers.take_one, initargs=(offered,)) as pool:
        results = [pool.submit(pair_workers.use_it, 50) for _ in range(3)]
        with ThreadPoolExecutor(3) as readers:
            reading = [readers.submit(read_all, consumer) for _, consumer in pairs]
            pids = [result.result(PATIENCE) for result in results]
            pool.shutdown()
    read = dict(filter(None, (each.result() for each in reading)))
    assert set(read) == set(filter(None, pids))
    assert read
    for types in read.values():
        assert types == list(range(50))


@by_every_method
@pytest.mark.parametrize("closes", [True, False])
def test_a_worker_that_keeps_its_bus_ends_orderly_only_if_it_has_it_closed(method, closes):
    producer, consumer = tachyon.pair(4096)
    context = multiprocessing.get_context(method)
    initargs = ([producer], closes)
    with ProcessPoolExecutor(1, context, initializer=pair_workers.open_one, initargs=initargs) as pool:
        sent = pool.submit(pair_workers.send_by_it, b"abc")
        with consumer.open(timeout=PATIENCE) as bus:
            sent.result(PATIENCE)
            pool.shutdown()
            assert bus.recv(timeout=PATIENCE).data == b"abc"
            with pytest.raises(tachyon.PeerDeadError) as caught:
                bus.recv(timeout=PATIENCE)
    orderly = isinstance(caught.value, tachyon.PeerClosedError)
    if closes or method != "spawn":  # a process that was spawned may come to its destructors
        assert orderly == closes


@by_every_method
def test_a_pool_with_more_workers_than_ends_breaks(method):
    context = multiprocessing.get_context(method)
    producer, _consumer = tachyon.pair(4096)
    producer.close()
    with ProcessPoolExecutor(1, context, initializer=pair_workers.take_one, initargs=([producer],)) as pool:
        result = pool.submit(pair_workers.use_it, 1)
        with pytest.raises(BrokenProcessPool):
            result.result(PATIENCE)


def test_an_end_is_handed_to_a_program_as_an_open_descriptor():
    producer, consumer = tachyon.pair(4096)
    code = "import sys, tachyon\nwith tachyon.BusEnd.from_fileno(int(sys.argv[1])) as bus: bus.send(b'abc', 7)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(producer.fileno())], pass_fds=[producer.fileno()]
    ) as program:
        producer.close()
        with consumer.open(timeout=PATIENCE) as bus:
            assert [tuple(msg) for msg in bus] == [(7, 3, b"abc")]
    assert program.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root")
def test_no_path_of_the_file_system_is_needed(tmp_path):
    producer, consumer = tachyon.pair(4096)
    pid = os.fork()
    if pid == 0:
        try:
            os.chroot(tmp_path)
            os.chdir("/")
            os.setuid(65534)
            with producer.open(timeout=PATIENCE) as bus:
                bus.send(b"abc")
            os._exit(0)
        finally:
            os._exit(1)
    with consumer.open(timeout=PATIENCE) as bus:
        assert [msg.data for msg in bus] == [b"abc"]
    assert os.waitpid(pid, 0)[1] == 0


def test_the_producers_end_sends_and_the_consumers_receives(run_thread):
    producer, consumer = tachyon.pair(4096)
    sending = run_thread(producer.open, timeout=PATIENCE)
    with consumer.open(timeout=PATIENCE) as receiver, sending.result(PATIENCE) as sender:
        with pytest.raises(tachyon.BusBusyError):
            receiver.try_send(b"abc")
        with pytest.raises(tachyon.BusBusyError):
            sender.try_recv()
        assert sender.stats()["role"] == "producer"
        assert receiver.stats()["role"] == "consumer"
        sender.send(b"abc")
        assert receiver.recv(timeout=PATIENCE).data == b"abc"


def test_both_ends_of_a_pipe_work_in_threads_of_one_process(run_thread):
    one, other = tachyon.pipe()
    sent = run_thread(lambda: [one.send(b"%d" % i) for i in range(100)])
    back = run_thread(lambda: [one.recv(timeout=PATIENCE).data for _ in range(100)])
    for _ in range(100):
        other.send(other.recv(timeout=PATIENCE).data)
    sent.result(PATIENCE)
    assert back.result(PATIENCE) == [b"%d" % i for i in range(100)]
    one.close()
    assert list(other) == []
    other.close()


def test_objects_and_arrays_go_through_a_pipe(run_thread):
    numpy = pytest.importorskip("numpy")
    one, other = tachyon.pipe()
    with one, other:
        sent = run_thread(one.send_obj, {"a": (1, 2)}, 7, allow_pickle=True)
        assert other.recv_obj(timeout=PATIENCE, allow_pickle=True) == {"a": (1, 2)}
        sent.result(PATIENCE)
        other.send_array(numpy.arange(6.0).reshape(2, 3))
        assert one.recv_array(timeout=PATIENCE).tolist() == [[0, 1, 2], [3, 4, 5]]
        into = numpy.zeros(3, "i4")
        other.send_array(into + 5)
        assert one.recv_array(into) is into
        assert into.tolist() == [5, 5, 5]


def open_both(ends, run_thread):
    opening = run_thread(ends[0].open, timeout=PATIENCE)
    return ends[1].open(timeout=PATIENCE), opening.result(PATIENCE)


@pytest.mark.parametrize(
    ("options", "most"), [({}, 1 << 30), ({"max_large": 1 << 16}, 1 << 16), ({"max_large": 0}, 4080)]
)
def test_the_maker_says_how_large_a_message_may_be(options, most, run_thread):
    for ends in (tachyon.pair(4096, **options), tachyon.rpc_pair(4096, 4096, **options)):
        for bus in open_both(ends, run_thread):
            with bus:
                assert bus.max_large_size == most
    one, other = open_both(tachyon.pipe(4096, **options), run_thread)
    with one, other:
        for bus in (one.tx, one.rx, other.tx, other.rx):
            assert bus.max_large_size == most
        with pytest.raises(tachyon.MessageTooLargeError):
            one.send_zero_copy(most + 1)
        one.send(bytes(min(most, 100_000)), 7, timeout=PATIENCE)
        assert other.recv(timeout=PATIENCE).size == min(most, 100_000)


@by_every_method
def test_a_limit_goes_along_to_a_child(method, start):
    here, there = tachyon.pipe(4096, max_large=1 << 16)
    start(method, pair_workers.echo, there)
    with here:
        here.send(b"x" * (1 << 16), timeout=PATIENCE)
        assert here.recv(timeout=PATIENCE).size == here.rx.max_large_size == 1 << 16


@pytest.mark.parametrize("bad", [-1, 1, 4097, 1 << 33])
def test_a_limit_that_cannot_be_is_refused(bad):
    for make in (tachyon.pipe, tachyon.rpc_pair, lambda **options: tachyon.pair(4096, **options)):
        with pytest.raises(ValueError, match=f"max_large must be 0, or a power of two .*, not {bad}"):
            make(max_large=bad)
        with pytest.raises(TypeError, match="max_large must be an int"):
            make(max_large=4096.0)


def test_a_loop_waits_for_the_other_side_by_the_descriptor(start):
    producer, consumer = tachyon.pair(4096)
    child = start("spawn", pair_workers.produce, producer, 3)
    bus = consumer.try_open()
    with selectors.DefaultSelector() as selector:
        selector.register(consumer.fileno(), selectors.EVENT_READ)
        while bus is None:
            assert selector.select(PATIENCE)
            bus = consumer.try_open()
    with bus:
        assert [msg.type_id for msg in bus] == [0, 1, 2]
    ends(child)


def test_too_many_ends_that_nobody_uses_are_refused(spawn):
    code = """
    import resource
    if os.geteuid() == 0: os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    def fill():
        while True: ends.append(tachyon.pair(4096))
    ends = []
    for _ in range(2):
        try: fill()
        except tachyon.HandshakeError as error: say("ulimit -n" in str(error), len(ends) > 15)
        ends.clear()
    """
    child = spawn(code)
    child.says("True True", "True True")
    child.ends()


def test_the_memory_is_reserved_when_the_ends_are_made():
    for capacity in (0, 63, 100, 1 << 33):
        with pytest.raises(tachyon.CapacityError, match=str(capacity)):
            tachyon.pair(capacity)
        with pytest.raises(tachyon.CapacityError, match=str(capacity)):
            tachyon.pipe(capacity)
        with pytest.raises(tachyon.CapacityError, match=str(capacity)):
            tachyon.rpc_pair(4096, capacity)
