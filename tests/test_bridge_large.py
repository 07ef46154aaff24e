"""Messages larger than a ring through a bridge: as on one machine, up to what both gateways and both programs take."""

import pytest
from test_bridge import outcome

import tachyon
from tachyon.bridge._gateway import Gateway
from tachyon.bridge._samples import How


def test_messages_larger_than_either_ring_go_through(gateways, tmp_path, run_thread):
    exporting, importing = gateways()
    exporting.export(str(tmp_path / "near"), "a", capacity=1 << 16)
    importing.import_("a", str(tmp_path / "far"))
    listening = run_thread(tachyon.Bus.listen, str(tmp_path / "far"), 4096, timeout=60)
    with tachyon.Bus.connect(str(tmp_path / "near"), timeout=60) as producer:
        consumer = listening.result(60)
        for size in (5, 5000, 7, 200_000, 9):
            producer.send(bytes([size % 251]) * size, size % 1000)
        for size in (5, 5000, 7, 200_000, 9):
            assert consumer.recv(timeout=60) == tachyon.Message(size % 1000, size, bytes([size % 251]) * size)
        consumer.close()


def test_a_message_larger_than_the_other_gateway_takes_is_refused_with_a_remedy(
    gateways, tmp_path, network, run_thread
):
    exporting, _ = gateways()
    exporting.export(str(tmp_path / "near"), "a", capacity=1 << 16)
    listening = run_thread(tachyon.Bus.listen, str(tmp_path / "far"), 4096, timeout=60)
    with Gateway(link=network.link(), max_large=1 << 16) as importing:
        importing.import_("a", str(tmp_path / "far"))
        with tachyon.Bus.connect(str(tmp_path / "near"), timeout=60) as producer, listening.result(60) as consumer:
            producer.send(b"small")
            assert consumer.recv(timeout=60).data == b"small"
            producer.send(bytes(2_000_000))
            assert outcome(exporting).how == outcome(importing).how == How.REFUSED
            assert (
                "2000040 bytes is larger than the gateway over there takes, which is 65536: give that one a larger"
                in (outcome(importing).text)
            )
            with pytest.raises(tachyon.PeerDeadError):
                consumer.recv(timeout=60)


def test_a_message_that_the_far_program_takes_in_no_form_is_refused_with_a_remedy(gateways, tmp_path, run_thread):
    exporting, importing = gateways()
    exporting.export(str(tmp_path / "near"), "a", capacity=1 << 16)
    listening = run_thread(tachyon.Bus.listen, str(tmp_path / "far"), 4096, timeout=60, max_large=0)
    importing.import_("a", str(tmp_path / "far"))
    with tachyon.Bus.connect(str(tmp_path / "near"), timeout=60) as producer, listening.result(60) as consumer:
        producer.send(bytes(4000))
        producer.send(bytes(5000))
        assert len(consumer.recv(timeout=60).data) == 4000
        with pytest.raises(tachyon.PeerDeadError):
            consumer.recv(timeout=60)
    assert outcome(exporting).how == How.REFUSED
    assert "a message of 5000 bytes can never fit: this bus takes at most 4080" in outcome(exporting).text


def test_a_program_is_told_by_its_own_bus_what_its_gateway_does_not_take(gateways, tmp_path):
    exporting, _ = gateways(max_large=1 << 20)
    exporting.export(str(tmp_path / "near"), "a", capacity=1 << 16)
    with tachyon.Bus.connect(str(tmp_path / "near"), timeout=60) as producer:
        with pytest.raises(tachyon.MessageTooLargeError, match="at most 1048576"):
            producer.send(bytes((1 << 20) + 1))


def test_a_ring_larger_than_the_largest_message_is_refused(gateways, tmp_path):
    gateway, _ = gateways(max_large=1 << 20)
    for make in (
        lambda: gateway.export(str(tmp_path / "x"), "x", capacity=1 << 21),
        lambda: gateway.import_rpc("x", str(tmp_path / "x"), cap_rev=1 << 21),
    ):
        with pytest.raises(ValueError, match="a ring of 2097152 bytes takes messages larger than this gateway"):
            make()
