"""A view that is kept too long: never a crash, never a look at a later message, never damage to one."""

import gc

import numpy as np
import pytest
from conftest import open_pair

from tachyon import BusBusyError, BusClosedError, BusFullError, Message


def new_numpy():
    return tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1)


def from_dlpack(guard):
    if not new_numpy():
        pytest.skip("this numpy does not know read-only tensors")
    return np.from_dlpack(guard)


VIEWS = pytest.mark.parametrize(
    "make",
    [memoryview, lambda g: memoryview(g)[1:3], lambda g: np.frombuffer(g, dtype=np.uint8), from_dlpack],
    ids=["memoryview", "slice", "frombuffer", "dlpack"],
)


@VIEWS
def test_a_view_of_a_received_frame_holds_it(pair, make):
    producer, consumer = pair(64)
    producer.send(b"1234")
    with pytest.raises(BufferError, match=r"1 view\(s\) of this RxGuard outlive its block.* held until they are gone"):
        with consumer.recv_zero_copy() as rx:
            view = make(rx)
    kept = bytes(view)
    assert kept in (b"1234", b"23")
    for _ in range(3):  # nothing comes into the frame
        assert not producer.try_send(b"late")
        assert bytes(view) == kept
    assert consumer.try_recv() is None  # a later receive works; there is no room for a message yet
    with pytest.raises(BusClosedError, match="is over"):
        memoryview(rx)
    del view
    gc.collect()
    assert producer.try_send(b"late")
    assert consumer.recv().data == b"late"


@VIEWS
def test_a_view_of_a_claim_holds_it_and_then_it_is_given_back_unsent(pair, make):
    producer, consumer = pair(256)
    with pytest.raises(BufferError, match=r"1 view\(s\) of this TxGuard outlive its block.* given back unsent"):
        with producer.send_zero_copy(200) as tx:
            view = make(tx)
            np.frombuffer(view, dtype=np.uint8)[:] = 0xAB
    assert consumer.try_recv() is None
    with pytest.raises(BusBusyError, match="a claim of this bus is open.* drop the views"):
        producer.send(b"x")
    np.frombuffer(view, dtype=np.uint8)[:] = 0xCD  # harms nobody
    assert consumer.try_recv() is None
    del view
    gc.collect()
    assert consumer.try_recv() is None
    for i in range(20):
        producer.send(b"%02d" % i * 90, timeout=0)
        assert consumer.recv() == Message(0, 180, b"%02d" % i * 90)
    assert consumer.try_recv() is None


@VIEWS
def test_a_view_of_a_batch_holds_all_of_it(pair, make):
    producer, consumer = pair(256)
    for i in range(4):
        producer.send(b"%d234" % i)
    with pytest.raises(BufferError, match=r"1 view\(s\) of this RxBatchGuard outlive its block"):
        with consumer.drain_batch() as batch:
            view = make(batch[2])
    kept = bytes(view)
    assert not producer.try_send(b"late")
    assert bytes(view) == kept
    assert consumer.try_recv() is None
    with pytest.raises(BusClosedError, match="is over"):
        batch[0]
    del view
    gc.collect()
    for i in range(4):
        assert producer.try_send(b"late %d" % i)
        assert consumer.recv().data == b"late %d" % i


def test_the_last_of_several_views_lets_go(pair):
    producer, consumer = pair(64)
    producer.send(b"1234")
    with pytest.raises(BufferError, match=r"3 view\(s\)"):
        with consumer.recv_zero_copy() as rx:
            views = [memoryview(rx), memoryview(rx), np.frombuffer(rx, dtype=np.uint8)]
    while views:
        assert not producer.try_send(b"late")
        assert bytes(views[0]) == b"1234"
        views.pop()
    assert producer.try_send(b"late")
    assert consumer.recv().data == b"late"


def test_views_released_within_the_block_are_no_matter(pair):
    producer, consumer = pair(64)
    producer.send(b"1234")
    with consumer.recv_zero_copy() as rx:
        for _ in range(5):
            memoryview(rx).release()
            np.frombuffer(rx, dtype=np.uint8).sum()
    assert producer.try_send(b"5678")


def open_guard(side, producer, consumer):
    if side == "tx":
        return producer.send_zero_copy(13)
    return consumer.recv_zero_copy() if side == "rx" else consumer.drain_batch()


@pytest.mark.parametrize("side", ["tx", "rx", "batch"])
def test_an_exception_in_the_block_is_the_one_that_is_seen(pair, side):
    producer, consumer = pair(64)
    if side != "tx":
        producer.send(b"1234")
    with pytest.raises(ZeroDivisionError):
        guard = {
            "tx": lambda: producer.send_zero_copy(4),
            "rx": consumer.recv_zero_copy,
            "batch": consumer.drain_batch,
        }[side]()
        with guard:
            view = memoryview(guard[0] if side == "batch" else guard)
            1 / 0
    with pytest.raises(BusBusyError if side == "tx" else BusFullError):  # the room is held until the view goes
        producer.send(b"late", timeout=0)
    view.release()
    producer.send(b"late", timeout=0)
    assert consumer.recv().data == b"late"


@pytest.mark.parametrize("close_first", [True, False])
@pytest.mark.parametrize("side", ["tx", "rx", "batch"])
def test_a_view_may_outlive_guard_and_bus(path, side, close_first):
    producer, consumer = open_pair(path, 4096)
    producer.send(b"first message")
    bus = producer if side == "tx" else consumer
    guard = open_guard(side, producer, consumer)
    guard.__enter__()
    view = memoryview(guard[0] if side == "batch" else guard)
    if close_first:
        bus.close()
    with pytest.raises(BufferError):
        guard.__exit__(None, None, None)
    bus.close()
    del guard, bus, producer, consumer
    gc.collect()
    if side == "tx":
        view[:] = b"wherever it is"[:13]
    assert len(view.tobytes()) == 13
    if side != "tx":
        assert view.tobytes() == b"first message"
    view.release()


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:tachyon" in line for line in maps)


def test_the_mapping_lives_as_long_as_a_view(tmp_path):
    before = mappings()
    producer, consumer = open_pair(tmp_path / "bus", 4096)
    assert mappings() == before + 2
    producer.send(b"1234")
    guard = consumer.recv_zero_copy()
    view = memoryview(guard)
    producer.close()
    consumer.close()
    assert mappings() == before + 1
    del guard, consumer
    gc.collect()
    assert view.tobytes() == b"1234"
    assert mappings() == before + 1
    view.release()
    del view
    gc.collect()
    assert mappings() == before


def test_the_mapping_goes_with_the_last_view_of_a_closed_bus(tmp_path):
    before = mappings()
    producer, consumer = open_pair(tmp_path / "bus", 4096)
    producer.send(b"1234")
    with consumer.recv_zero_copy() as rx, memoryview(rx):
        producer.close()
        consumer.close()
        assert mappings() == before + 1
    assert mappings() == before
    assert consumer.closed  # though the bus itself is still there


GARBAGE = """
    import gc
    from concurrent.futures import ThreadPoolExecutor

    def open_pair(path, capacity):
        with ThreadPoolExecutor(1) as pool:
            listening = pool.submit(tachyon.Bus.listen, path, capacity, timeout=60)
            return tachyon.Bus.connect(path, timeout=60), listening.result()

    class Holder: pass

    gc.disable()
    producer, consumer = open_pair(path, 4096)
    for _ in range(20):
        producer.send(b"1234"); producer.send(b"5678")
        {made}
        holder = Holder()
        holder.itself = holder
        holder.kept = kept
        del kept, holder
        gc.collect()
        {after}
    say("fine")
"""
KEPT = {
    "tx": ("kept = producer.send_zero_copy(8)", "assert [consumer.recv().data for _ in '12'] == [b'1234', b'5678']"),
    "tx view": (
        "g = producer.send_zero_copy(8); kept = [g, memoryview(g)]; del g",
        "assert [consumer.recv().data for _ in '12'] == [b'1234', b'5678']",
    ),
    "rx": ("kept = consumer.recv_zero_copy()", "assert consumer.recv().data == b'5678'"),
    "rx view": (
        "g = consumer.recv_zero_copy(); kept = [g, memoryview(g)]; del g",
        "assert consumer.recv().data == b'5678'",
    ),
    "batch": ("kept = consumer.drain_batch()", "assert consumer.try_recv() is None"),
    "batch iterator": (
        "g = consumer.drain_batch(); kept = [g, iter(g)]; next(kept[1]); del g",
        "assert consumer.try_recv() is None",
    ),
    "batch view": (
        "g = consumer.drain_batch(); v = g[0]; kept = [v, memoryview(v), g, memoryview(g[1])]; del g, v",
        "assert consumer.try_recv() is None",
    ),
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_guard_in_a_reference_cycle_is_collected_without_a_crash(spawn, path, kind):
    made, after = KEPT[kind]
    child = spawn(GARBAGE.format(made=made, after=after), path)
    child.says("fine")
    child.ends()
