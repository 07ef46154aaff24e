"""One claim at a time, and guards that are kept, copied or made by hand."""

import copy
import pickle
import weakref

import pytest

import tachyon
from tachyon import BusBusyError, BusClosedError

# ---- one claim at a time ---------------------------------------------------------------------------------------------


def open_tx(producer, consumer):
    return producer.send_zero_copy(4), producer


def open_rx(producer, consumer):
    producer.send(b"1234")
    producer.send(b"5678")
    return consumer.recv_zero_copy(), consumer


def open_batch(producer, consumer):
    producer.send(b"1234")
    return consumer.drain_batch(), consumer


OPENERS = pytest.mark.parametrize("opener", [open_tx, open_rx, open_batch], ids=lambda each: each.__name__)


def test_nothing_else_is_sent_while_a_claim_is_open(pair):
    producer, consumer = pair()
    uses = [
        lambda: producer.send(b"x"),
        lambda: producer.send(memoryview(b"x_y_z_")[::2]),
        lambda: producer.try_send(b"x"),
        lambda: producer.send_many([b"x"]),
        lambda: producer.send_zero_copy(4),
        producer.wait_read,
        producer.finish,
    ]
    with producer.send_zero_copy(4) as tx:
        for use in uses:
            with pytest.raises(BusBusyError, match=r"a claim of this bus is open; leave its block"):
                use()
        with pytest.raises(BusBusyError, match="one side sends"):
            producer.try_recv()
        producer.flush()
        producer.set_polling_mode(True)
        assert producer.stats()["role"] == "producer"
        assert not producer.closed
        tx.actual_size = 0
    assert consumer.recv().data == b""
    assert consumer.try_recv() is None


@OPENERS
def test_a_guard_serves_one_block_only(pair, opener):
    producer, consumer = pair()
    guard, _ = opener(producer, consumer)
    with guard:
        pass
    with pytest.raises(BusClosedError, match="is over: its block has been left"):
        with guard:
            pass
    with pytest.raises(BusClosedError, match="is over"):
        memoryview(guard) if opener is not open_batch else guard[0]
    assert guard.__exit__(None, None, None) is None  # harmless


def test_a_guard_after_its_block_keeps_its_numbers_and_refuses_changes(pair):
    producer, consumer = pair()
    with producer.send_zero_copy(4, 9) as tx:
        tx.actual_size = 2
    assert (tx.actual_size, tx.type_id, len(tx)) == (2, 9, 4)
    with pytest.raises(BusClosedError):
        tx.actual_size = 1
    with pytest.raises(BusClosedError):
        tx.type_id = 1
    with consumer.recv_zero_copy() as rx:
        pass
    assert (rx.actual_size, rx.type_id) == (2, 9)


@OPENERS
def test_a_guard_whose_bus_is_closed_gives_nothing_out(pair, opener):
    guard, bus = opener(*pair())
    bus.close()
    assert bus.closed
    with pytest.raises(BusClosedError, match="is closed"):
        memoryview(guard) if opener is not open_batch else guard[0]
    with pytest.raises(BusClosedError, match="is closed"):
        guard.__enter__()
    del guard


def test_closing_the_bus_within_a_block_loses_what_was_to_be_sent_and_says_so(pair):
    producer, consumer = pair()
    producer.send(b"before")
    with pytest.raises(BusClosedError, match="is closed"):
        with producer.send_zero_copy(4) as tx:
            with memoryview(tx) as view:
                view[:] = b"lost"
                producer.close()
                view[:] = b"LOST"  # still mapped
    assert [message.data for message in consumer] == [b"before"]


def test_closing_the_bus_within_a_receiving_block_is_fine(pair):
    producer, consumer = pair()
    producer.send_many([b"1234", b"5678"])
    with consumer.recv_zero_copy() as rx, memoryview(rx) as view:
        consumer.close()
        assert view.tobytes() == b"1234"
    producer, consumer = pair()
    producer.send_many([b"1234", b"5678"])
    with consumer.drain_batch() as batch:
        view = memoryview(batch[1])
        consumer.close()
        assert view.tobytes() == b"5678"
        view.release()


@OPENERS
def test_a_guard_outlives_its_names(pair, opener):
    producer, consumer = pair()
    guard, bus = opener(producer, consumer)
    del bus, producer, consumer
    with guard:
        pass


# ---- not to be made, subclassed, copied, pickled ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tachyon.TxGuard, tachyon.RxGuard, tachyon.RxView, tachyon.RxBatchGuard])
def test_a_guard_is_made_by_a_bus_only(kind):
    with pytest.raises(TypeError, match="is made by"):
        kind()
    with pytest.raises(TypeError):
        type("Mine", (kind,), {})


@pytest.mark.parametrize("kind", [tachyon.TxGuard, tachyon.RxGuard, tachyon.RxView, tachyon.RxBatchGuard])
def test_a_guard_made_behind_its_back_is_of_no_use_but_does_no_harm(spawn, kind):
    child = spawn(f"""
        guard = tachyon.{kind.__name__}.__new__(tachyon.{kind.__name__})
        for use in (memoryview, bytes, len, iter, repr, lambda g: g.__enter__(), lambda g: g.__exit__(None, None, None),
                    lambda g: g.__dlpack__(max_version=(1, 0)), lambda g: g[0], lambda g: g.actual_size,
                    lambda g: setattr(g, "type_id", 1), lambda g: setattr(g, "actual_size", 0)):
            try: use(guard)
            except (TypeError, ValueError, AttributeError): pass
        say("fine")
    """)
    child.says("fine")
    child.ends()


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda each: each.__name__)
def test_nothing_that_is_open_can_be_copied_or_pickled(pair, clone):
    producer, consumer = pair()
    for bus in (producer, consumer):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            clone(bus)
    with producer.send_zero_copy(4) as tx:
        with pytest.raises(TypeError, match="TxGuard cannot be pickled or copied"):
            clone(tx)
    with consumer.recv_zero_copy() as rx:
        with pytest.raises(TypeError, match="RxGuard cannot be pickled or copied"):
            clone(rx)
    producer.send(b"x")
    with consumer.drain_batch() as batch:
        with pytest.raises(TypeError, match="RxBatchGuard cannot be pickled or copied"):
            clone(batch)
        with pytest.raises(TypeError, match="RxView cannot be pickled or copied"):
            clone(batch[0])


def test_everything_can_be_referred_to_weakly(pair):
    producer, consumer = pair()
    with producer.send_zero_copy(4) as tx:
        assert weakref.ref(tx)() is tx
    with consumer.recv_zero_copy() as rx:
        assert weakref.ref(rx)() is rx
    assert weakref.ref(producer)() is producer
