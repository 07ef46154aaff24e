"""stats, flush, set_polling_mode, set_numa_node."""

import pytest

import tachyon


def test_the_keys(pair):
    producer, consumer = pair(4096)
    keys = {"role", "messages", "position", "parks", "wakes", "spin_budget_ns", "capacity"}
    for bus in (producer, consumer):
        stats = bus.stats()
        assert set(stats) == keys
        assert stats["role"] is None
        assert (stats["messages"], stats["position"], stats["capacity"]) == (0, 0, 4096)
        assert stats["spin_budget_ns"] >= 0


def test_both_sides_count_messages_and_bytes(pair):
    producer, consumer = pair(4096)
    sizes = [0, 48, 49, 100]  # 1, 1, 2 and 2 lines
    for size in sizes:
        producer.send(bytes(size))
    assert producer.stats()["messages"] == 4
    assert producer.stats()["position"] == 6 * 64
    assert consumer.stats()["messages"] == 0
    for _ in sizes:
        consumer.recv()
    assert consumer.stats()["messages"] == 4
    assert consumer.stats()["position"] == 6 * 64
    assert (producer.stats()["role"], consumer.stats()["role"]) == ("producer", "consumer")


def test_parks_and_wakes_are_counted(pair, run_thread, until):
    producer, consumer = pair()
    receiving = run_thread(consumer.recv)
    until(lambda: consumer.stats()["parks"] > 0)
    producer.send(b"x")
    receiving.result()
    assert producer.stats()["wakes"] >= 0
    before = producer.stats()["wakes"]
    for _ in range(200):  # a sleeper is woken sooner or later
        receiving = run_thread(consumer.recv)
        parks = consumer.stats()["parks"]
        until(lambda before=parks: consumer.stats()["parks"] > before)
        producer.send(b"x")
        receiving.result()
        if producer.stats()["wakes"] > before:
            break
    assert producer.stats()["wakes"] > before


def test_a_spin_that_fails_costs_half_of_its_budget(pair):
    _, consumer = pair()
    before = consumer.stats()["spin_budget_ns"]
    assert before > 0
    with pytest.raises(tachyon.BusEmptyError):
        consumer.recv(timeout=0.01)
    assert 0 < consumer.stats()["spin_budget_ns"] <= before // 2


def test_flush_is_harmless_at_any_time(pair):
    producer, consumer = pair()
    producer.flush()
    consumer.flush()
    producer.send(b"x")
    producer.flush()
    consumer.flush()
    assert consumer.recv().data == b"x"
    consumer.flush()


def test_flush_by_the_consumer_hands_back_what_it_has_read(pair):
    producer, consumer = pair(4096)
    while producer.try_send(b"x"):
        pass
    consumer.recv()
    consumer.flush()
    assert producer.try_send(b"y")


@pytest.mark.parametrize("polling", [True, False])
def test_messages_move_in_either_polling_mode(pair, run_thread, polling):
    producer, consumer = pair(256)
    for bus in (producer, consumer):
        bus.set_polling_mode(polling)
    receiving = run_thread(lambda: [consumer.recv(timeout=30).data for _ in range(200)])
    for i in range(200):
        producer.send(b"%d" % i, timeout=30)
    assert receiving.result() == [b"%d" % i for i in range(200)]


def test_a_polling_side_never_parks_and_stops_polling_when_told(pair):
    producer, consumer = pair(64)
    producer.send(b"x")
    for bus, wait, error in (
        (consumer, lambda: consumer.recv(timeout=0.15), tachyon.BusEmptyError),
        (producer, lambda: producer.send(b"y", timeout=0.15), tachyon.BusFullError),
    ):
        if bus is consumer:
            consumer.recv()
        else:
            producer.send(b"x")
        bus.set_polling_mode(True)
        before = bus.stats()["parks"]
        with pytest.raises(error):
            wait()
        assert bus.stats()["parks"] == before
        bus.set_polling_mode(False)
        with pytest.raises(error):
            wait()
        assert bus.stats()["parks"] > before


def test_any_truth_will_do_as_a_mode(pair):
    bus, _ = pair()
    for value in (1, 0, None, "yes", []):
        bus.set_polling_mode(value)


def test_numa_node_0_is_everywhere(pair):
    producer, consumer = pair()
    for bus in (producer, consumer):
        assert bus.set_numa_node(0) is None
    producer.send(b"x")
    assert consumer.recv().data == b"x"


@pytest.mark.parametrize("bad", [-1, 1024, 2**32, 2**64])
def test_a_numa_node_out_of_range_is_refused_with_its_number(pair, bad):
    bus, _ = pair()
    with pytest.raises(ValueError, match=f"NUMA node must be between 0 and 1023, not {bad}"):
        bus.set_numa_node(bad)


def test_a_numa_node_that_is_missing_is_refused_with_its_number(pair):
    bus, _ = pair()
    with pytest.raises(ValueError, match="no NUMA node 999"):
        bus.set_numa_node(999)


@pytest.mark.parametrize("bad", ["0", 0.0, None])
def test_a_numa_node_of_the_wrong_type_is_refused(pair, bad):
    bus, _ = pair()
    with pytest.raises(TypeError):
        bus.set_numa_node(bad)
