"""Gateways over a link within this process that does its worst: buses and calls go through, and end as they should."""

import argparse
import contextlib
import signal
import threading
import time

import pytest
from test_bridge_packing import check, checked

import tachyon
from tachyon.bridge._gateway import Gateway
from tachyon.bridge._samples import GREETING, How, Kind, encode
from tachyon.cli.bridge import _Running


@pytest.fixture
def bridged(gateways, tmp_path, run_thread, until):
    """bridged(capacity, **options) → (producer, consumer, exporting gateway, importing gateway)"""
    opened = []

    def make(capacity=1 << 16, **options):
        near, far = str(tmp_path / "near"), str(tmp_path / "far")
        exporting, importing = gateways(**options)
        exporting.export(near, "a/b", capacity=capacity)
        importing.import_("a/b", far)
        listening = run_thread(tachyon.Bus.listen, far, capacity, timeout=60)
        producer = tachyon.Bus.connect(near, timeout=60)
        consumer = listening.result(60)
        opened.extend((producer, consumer))
        for gateway in (exporting, importing):
            until(lambda gateway=gateway: any(each.channel.open for each in gateway.routes[0]._now()))
        return producer, consumer, exporting, importing

    yield make
    for bus in opened:
        bus.close()


def outcome(gateway):
    assert gateway.wait(60)
    return gateway.routes[0].outcome


def test_messages_and_a_clean_end_go_through(bridged, run_thread):
    producer, consumer, exporting, importing = bridged()

    def send():
        for number in range(20_000):
            producer.send(checked(number), number % 1000, timeout=60)
        producer.finish(timeout=60)

    sending = run_thread(send)
    count = 0
    for message in consumer:
        check(message, count)
        count += 1
    assert count == 20_000
    time.sleep(0.5)
    assert not sending.done()  # finish() waits for the consumer over there
    consumer.close()
    sending.result(60)
    assert outcome(exporting) == (How.CLOSED, False, "")
    assert outcome(importing) == (How.CLOSED, True, "")
    assert exporting.stats()["a/b"]["sent"] == importing.stats()["a/b"]["received"] == 20_000


@pytest.mark.parametrize("worst", ["drop", "repeat", "reorder", "all"])
def test_a_bad_link_loses_nothing_and_changes_no_order(bridged, network, run_thread, worst):
    for each in ("drop", "repeat", "reorder"):
        if worst in (each, "all"):
            setattr(network, each, 0.1)
    producer, consumer, exporting, _ = bridged(1 << 14, window=1 << 16)

    def send():
        for number in range(2000):
            producer.send(checked(number), number % 1000, timeout=60)
        producer.close()

    sending = run_thread(send)
    count = 0
    for message in consumer:
        check(message, count)
        count += 1
    assert count == 2000
    sending.result(60)
    consumer.close()
    assert outcome(exporting).how == How.CLOSED


def test_cuts_lose_nothing(bridged, network, run_thread):
    producer, consumer, exporting, _ = bridged(1 << 14, grace=30)

    def send():
        for number in range(20_000):
            producer.send(checked(number), number % 1000, timeout=60)
        producer.close()

    sending = run_thread(send)
    count = cuts = 0
    for message in consumer:
        check(message, count)
        count += 1
        if count % 4000 == 0:
            network.cut()
            time.sleep(0.1)
            network.mend()
            cuts += 1
    assert (count, cuts) == (20_000, 5)
    sending.result(60)
    consumer.close()
    assert outcome(exporting).how == How.CLOSED


def test_a_consumer_that_stalls_fills_the_ring_over_here_and_no_more(bridged, until):
    producer, consumer, exporting, importing = bridged(1 << 16, window=1 << 16)
    sent = 0
    for _ in range(20):  # until the acknowledgements of the last tick are here
        while producer.try_send(bytes(1000), sent % 1000):
            sent += 1
        time.sleep(0.05)
    kept, waiting = exporting.stats()["a/b"]["kept"], importing.stats()["a/b"]["waiting"]
    assert kept <= (1 << 16) + (256 << 10)
    assert waiting <= 1 << 16
    assert sent * 1000 < 3 * (1 << 16) + (256 << 10)
    assert exporting.stats()["a/b"]["resent"] == 0
    producer.close()
    assert sum(1 for _ in consumer) == sent


def test_an_abort_arrives_as_one_after_everything(bridged):
    producer, consumer, exporting, importing = bridged()
    producer.send(b"one")
    producer.abort()
    assert consumer.recv(timeout=60).data == b"one"
    with pytest.raises(tachyon.PeerDeadError) as caught:
        consumer.recv(timeout=60)
    assert caught.value.reason == "aborted"
    assert outcome(exporting) == (How.ABORTED, False, "")
    assert outcome(importing) == (How.ABORTED, True, "")


def test_a_consumer_that_closes_is_told_to_the_producer_as_closed(bridged, until):
    producer, consumer, exporting, importing = bridged()
    consumer.close()
    with pytest.raises(tachyon.PeerClosedError):
        while True:
            producer.send(b"x", timeout=60)
    assert outcome(exporting).how == outcome(importing).how == How.CLOSED


def test_a_consumer_that_aborts_is_told_though_nothing_is_sent(bridged):
    producer, consumer, exporting, _ = bridged()
    consumer.abort()
    assert outcome(exporting) == (How.ABORTED, True, "")
    with pytest.raises(tachyon.PeerDeadError) as caught:
        producer.send(b"x", timeout=60)
    assert caught.value.reason == "aborted"


def test_one_message_larger_than_the_window_goes_through(bridged, run_thread):
    producer, consumer, _, _ = bridged(1 << 20, window=1 << 16)
    sending = run_thread(producer.send_many, [bytes([i]) * 700_000 for i in range(5)])
    for i in range(5):
        assert consumer.recv(timeout=60).data == bytes([i]) * 700_000
    assert sending.result(60) == 5


def test_a_gateway_that_dies_ends_the_other_bus_after_what_had_arrived(bridged):
    producer, consumer, exporting, importing = bridged()
    for number in range(10):
        producer.send(checked(number), number)
    for number in range(5):
        check(consumer.recv(timeout=60), number)
    exporting._link.close()  # as a process that is killed: it says nothing more
    for number in range(5, 10):
        check(consumer.recv(timeout=60), number)
    with pytest.raises(tachyon.PeerDeadError):
        consumer.recv(timeout=60)
    assert outcome(importing) == (How.LOST, True, "")


def test_a_gateway_of_the_consumer_that_dies_ends_the_producers_bus(bridged):
    producer, _, exporting, importing = bridged()
    importing._link.close()
    with pytest.raises(tachyon.PeerDeadError):
        while True:
            producer.send(bytes(100), timeout=60)
    assert outcome(exporting) == (How.LOST, True, "")


def test_stopping_the_exporter_sends_what_the_ring_holds_and_is_no_clean_end(bridged):
    producer, consumer, exporting, importing = bridged()
    for number in range(200):
        producer.send(checked(number), number % 1000)
    exporting.stop()
    for number in range(200):
        check(consumer.recv(timeout=60), number)
    with pytest.raises(tachyon.PeerDeadError) as caught:
        consumer.recv(timeout=60)
    assert caught.value.reason == "aborted"
    with pytest.raises(tachyon.PeerDeadError):
        while True:
            producer.send(b"x", timeout=60)
    assert outcome(exporting) == (How.STOPPED, False, "")
    assert outcome(importing) == (How.STOPPED, True, "")


def test_stopping_the_importer_asks_the_exporter_to_end(bridged):
    producer, consumer, exporting, importing = bridged()
    for number in range(200):
        producer.send(checked(number), number % 1000)
    importing.stop()
    for number in range(200):
        check(consumer.recv(timeout=60), number)
    with pytest.raises(tachyon.PeerDeadError):
        consumer.recv(timeout=60)
    assert outcome(exporting).how == outcome(importing).how == How.STOPPED


def test_stopping_ends_though_the_consumer_reads_nothing(bridged):
    producer, consumer, exporting, importing = bridged(1 << 14, window=1 << 16)
    while producer.try_send(bytes(1000)):
        time.sleep(0.001)
    exporting.stop()
    assert outcome(exporting) == (How.STOPPED, False, "not everything went through in time")
    consumer.close()
    assert importing.wait(60)


def test_stopping_ends_though_the_other_gateway_is_gone_and_the_consumer_reads_nothing(bridged):
    producer, consumer, exporting, importing = bridged(1 << 14, window=1 << 16)
    while producer.try_send(bytes(1000)):
        time.sleep(0.001)
    exporting._link.close()
    time.sleep(1.5)
    assert not importing.wait(0)  # what has arrived is the program's
    importing.stop()
    assert importing.wait(60)
    assert consumer.try_recv() is not None


def test_a_second_importer_of_a_bus_is_refused(bridged, network, tmp_path, run_thread):
    producer, consumer, _, _ = bridged()
    producer.send(b"x")
    consumer.recv(timeout=60)
    with Gateway(link=network.link()) as third:
        third.import_("a/b", str(tmp_path / "third"), capacity=4096, listens=True)
        with tachyon.Bus.connect(str(tmp_path / "third"), timeout=60) as late:
            with pytest.raises(tachyon.PeerDeadError):
                late.recv(timeout=60)
        assert outcome(third) == (How.REFUSED, True, "a/b is being imported by another gateway")
    producer.send(b"y")
    assert consumer.recv(timeout=60).data == b"y"


def test_a_second_exporter_of_a_name_is_refused(gateways, network, tmp_path, until):
    exporting, importing = gateways()
    with Gateway(link=network.link(), grace=1.0) as third, contextlib.ExitStack() as buses:
        producers = []
        for number, gateway in enumerate((exporting, third)):
            route = gateway.export(str(tmp_path / f"near-{number}"), "a", capacity=4096)
            producers.append(buses.enter_context(tachyon.Bus.connect(str(tmp_path / f"near-{number}"), timeout=60)))
            until(lambda route=route: route.state == "waiting for the other side")
        time.sleep(0.2)  # until both listen to the link
        importing.import_("a", str(tmp_path / "far"), capacity=4096, listens=True)
        consumer = buses.enter_context(tachyon.Bus.connect(str(tmp_path / "far"), timeout=60))
        pair = [exporting, third]
        until(lambda: any(gateway.routes[0].ended.is_set() for gateway in pair))
        second = 0 if exporting.routes[0].ended.is_set() else 1
        text = "another gateway exports this name, and answered first"
        assert outcome(pair[second]) == (How.REFUSED, True, text)
        producers[1 - second].send(b"x", timeout=60)
        assert consumer.recv(timeout=60).data == b"x"


def test_an_importer_that_starts_anew_ends_the_old_stream_and_gets_no_rest_of_it(bridged, network, tmp_path):
    producer, consumer, exporting, importing = bridged(grace=60)
    producer.send(b"x")
    consumer.recv(timeout=60)
    importing._link.close()
    with Gateway(link=network.link(), grace=60) as again:
        again.import_("a/b", str(tmp_path / "again"), capacity=4096, listens=True)
        with tachyon.Bus.connect(str(tmp_path / "again"), timeout=60) as late:
            with pytest.raises(tachyon.PeerDeadError):
                while True:
                    producer.send(b"y", timeout=60)
            assert outcome(exporting).how == How.LOST
            assert late.try_recv() is None


def test_a_producer_may_be_done_before_anybody_imports(gateways, tmp_path, run_thread):
    exporting, importing = gateways()
    exporting.export(str(tmp_path / "near"), "a", capacity=1 << 16)
    with tachyon.Bus.connect(str(tmp_path / "near"), timeout=60) as producer:
        producer.send(b"early")
    listening = run_thread(tachyon.Bus.listen, str(tmp_path / "far"), 4096, timeout=60)
    importing.import_("a", str(tmp_path / "far"))
    with listening.result(60) as consumer:
        assert [message.data for message in consumer] == [b"early"]
    assert outcome(exporting).how == outcome(importing).how == How.CLOSED


def test_several_buses_share_a_gateway(gateways, tmp_path, run_thread):
    exporting, importing = gateways()
    for name in "abc":
        exporting.export(str(tmp_path / f"near-{name}"), name, capacity=1 << 14)
        importing.import_(name, str(tmp_path / f"far-{name}"), capacity=1 << 14, listens=True)
    with contextlib.ExitStack() as stack:
        producers = {
            name: stack.enter_context(tachyon.Bus.connect(tmp_path / f"near-{name}", timeout=60)) for name in "abc"
        }
        consumers = {
            name: stack.enter_context(tachyon.Bus.connect(tmp_path / f"far-{name}", timeout=60)) for name in "abc"
        }
        for number in range(200):
            for name in "abc":
                producers[name].send(name.encode(), number)
        for number in range(200):
            for name in "abc":
                assert consumers[name].recv(timeout=60) == tachyon.Message(number, 1, name.encode())
        for producer in producers.values():
            producer.close()
    assert exporting.wait(60)
    assert [route.outcome.how for route in exporting.routes] == [How.CLOSED] * 3


@pytest.mark.parametrize("name", ["", "a b", "a//b", "/a", "a*", "a$", "ü", "a" * 201])
def test_a_name_that_is_none_is_refused(gateways, tmp_path, name):
    with pytest.raises(ValueError, match="is not a name"):
        gateways()[0].export_rpc(str(tmp_path / "x"), name)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("window", 1000), ("window", 1 << 40), ("grace", 0), ("grace", float("nan"))],
        *[("max_large", 0), ("max_large", 1 << 30), ("max_large", 100_000)],
    ],
)
def test_a_window_or_a_grace_out_of_bounds_is_refused(network, option, value):
    with pytest.raises(ValueError, match=option):
        Gateway(link=network.link(), **{option: value})


def test_a_signal_in_the_middle_of_a_look_at_the_counters_stops_the_command(gateways, tmp_path, monkeypatch):
    exporting, _ = gateways()
    route = exporting.export(str(tmp_path / "near"), "a", capacity=4096)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    told = []

    def stats():
        with route._lock:
            if not told:
                told.append(True)
                signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr(route, "stats", stats)
    try:
        assert _Running(exporting, argparse.Namespace(quiet=False, json=True, timeout=None)).run() == 143
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_an_importer_that_goes_while_it_is_let_in_is_known_to_be_gone(gateways, tmp_path, monkeypatch, until):
    exporting, _ = gateways()
    route = exporting.export(str(tmp_path / "near"), "a", capacity=4096)
    with tachyon.Bus.connect(str(tmp_path / "near"), timeout=60):
        until(lambda: route.state == "waiting for the other side" and hasattr(route, "_present"))
        going = threading.Thread(target=route._on_presence, args=(route._key("i", 7), False))
        add = route._add

        def add_late(session, importer):
            going.start()
            going.join(0.5)
            add(session, importer)

        monkeypatch.setattr(route, "_add", add_late)
        route._on_presence(route._key("i", 7), True)
        route._on_sample(route._key("u", 7), encode(Kind.HELLO, 7, 0, payload=GREETING.pack(False, 1 << 16, 1 << 16)))
        going.join(60)
        assert outcome(exporting).how == How.LOST


def test_two_exports_of_one_name_are_refused_while_the_first_goes_on(gateways, tmp_path):
    exporting, _ = gateways()
    first = exporting.export(str(tmp_path / "near"), "a", capacity=4096)
    with pytest.raises(ValueError, match="'a' is exported already"):
        exporting.export(str(tmp_path / "other"), "a", capacity=4096)
    with pytest.raises(ValueError, match="'a' is exported already"):
        exporting.export_rpc(str(tmp_path / "other"), "a")
    first.stop()
    assert first.ended.wait(60)
    exporting.export(str(tmp_path / "other"), "a", capacity=4096)
