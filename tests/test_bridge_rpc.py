"""Calls through a bridge: deadlines stay with the caller, and a death over there is one over here."""

import os

import pytest

import tachyon
from tachyon import RpcBus, tachyon_rpc


@tachyon_rpc(msg_type=8)
def fail_with_details(payload):
    raise ValueError("no")


@pytest.fixture
def bridge(gateways, tmp_path):
    """bridge(path of the server) → path for callers"""

    def make(path, **options):
        exporting, importing = gateways(**options)
        exporting.export_rpc(path, "shop")
        importing.import_rpc("shop", str(tmp_path / "calls"), cap_fwd=1 << 16, cap_rev=1 << 16)
        make.gateways = exporting, importing
        return str(tmp_path / "calls")

    return make


def test_calls_are_answered(serve, bridge, path):
    serve()
    with RpcBus.connect(bridge(path), timeout=60) as bus:
        for number in range(200):
            cid = bus.call(str(number).encode(), 1, timeout=60)
            with bus.wait(cid, timeout=60) as answer:
                assert bytes(answer) == str(number).encode()


def test_many_in_flight_are_answered_in_any_order(serve, bridge, path):
    serve()
    with RpcBus.connect(bridge(path), timeout=60) as bus:
        ids = [bus.call(bytes(100) + str(number).encode(), 1, timeout=60) for number in range(2000)]
        for number in reversed(range(2000)):
            with bus.wait(ids[number], timeout=60) as answer:
                assert bytes(answer) == bytes(100) + str(number).encode()


def test_an_error_over_there_is_one_over_here(serve, bridge, path):
    serve(fail_with_details, send_details=True)
    with RpcBus.connect(bridge(path), timeout=60) as bus, pytest.raises(tachyon.RpcError) as caught:
        tachyon.RpcEndpoint(8).call(bus, b"x", timeout=60)
    assert "no" in caught.value.detail


def test_many_callers_share_one_server(serve, bridge, path, run_thread):
    server = serve()
    where = bridge(path)

    def call(who):
        with RpcBus.connect(where, timeout=60) as bus:
            for number in range(50):
                text = f"{who} {number}".encode()
                with bus.wait(bus.call(text, 1, timeout=60), timeout=60) as answer:
                    assert bytes(answer) == text

    for each in [run_thread(call, who) for who in range(8)]:
        each.result(60)
    assert server.stats()["accepted"] == 8
    assert server.stats()["served"] == 400


def test_a_deadline_is_the_callers_and_the_bus_goes_on(path, bridge, run_thread):
    listening = run_thread(RpcBus.listen, path, timeout=60)
    where = bridge(path)
    with RpcBus.connect(where, timeout=60) as bus:
        callee = listening.result(60)
        first = bus.call(b"slow", 1)
        with pytest.raises(tachyon.BusEmptyError):
            bus.wait(first, timeout=0.05)
        with callee.serve(timeout=60) as request:
            cid = request.correlation_id
        callee.reply(cid, b"late")
        with bus.wait(first, timeout=60) as answer:
            assert bytes(answer) == b"late"
        callee.close()


@pytest.mark.parametrize(("way", "error"), [("close", tachyon.PeerClosedError), ("abort", tachyon.PeerDeadError)])
def test_a_callee_that_goes_is_told_after_its_last_answer(path, bridge, run_thread, way, error):
    listening = run_thread(RpcBus.listen, path, timeout=60)
    with RpcBus.connect(bridge(path), timeout=60) as bus:
        callee = listening.result(60)
        first, second = bus.call(b"a", 1), bus.call(b"b", 1)
        with callee.serve(timeout=60) as request:
            cid = request.correlation_id
        callee.reply(cid, b"A")
        getattr(callee, way)()
        with bus.wait(first, timeout=60) as answer:
            assert bytes(answer) == b"A"
        with pytest.raises(error):
            bus.wait(second, timeout=60)


def test_a_callee_that_is_killed_is_a_dead_peer(spawn, path, bridge):
    server = spawn(
        """
        dispatcher = tachyon.RpcDispatcher()
        @dispatcher.handler(3)
        def die(request): os._exit(9)
        say("up")
        with tachyon.RpcServer(path, dispatcher) as server: server.serve_forever()
        """,
        path,
    )
    server.says("up")
    where = bridge(path)
    while not os.path.exists(path):
        pass
    with RpcBus.connect(where, timeout=60) as bus:
        cid = bus.call(b"x", 3)
        with pytest.raises(tachyon.PeerDeadError):
            bus.wait(cid, timeout=60)


def test_a_caller_that_goes_frees_its_place_over_there(serve, bridge, path, until):
    server = serve()
    where = bridge(path)
    for _ in range(3):
        with RpcBus.connect(where, timeout=60) as bus, bus.wait(bus.call(b"x", 1), timeout=60):
            pass
    until(lambda: server.stats()["callers"] == 0)
    exporting, importing = bridge.gateways
    until(lambda: exporting.stats()["shop"]["sessions"] == importing.stats()["shop"]["sessions"] == 0)
    assert exporting.stats()["shop"]["received"] == 3


def test_a_caller_of_a_server_that_is_not_there_is_told(bridge, path):
    with RpcBus.connect(bridge(path), timeout=60) as bus:
        cid = bus.call(b"x", 1)
        with pytest.raises(tachyon.PeerDeadError):
            bus.wait(cid, timeout=60)


def test_a_bus_and_an_rpc_bus_of_one_name_do_not_meet(gateways, tmp_path):
    exporting, importing = gateways()
    exporting.export(str(tmp_path / "near"), "x", capacity=4096)
    importing.import_rpc("x", str(tmp_path / "calls"))
    with (
        tachyon.Bus.connect(tmp_path / "near", timeout=60) as producer,
        RpcBus.connect(tmp_path / "calls", timeout=60) as bus,
    ):
        cid = bus.call(b"x", 1)
        with pytest.raises(tachyon.PeerDeadError):
            bus.wait(cid, timeout=60)
        with pytest.raises(tachyon.PeerDeadError):
            while True:
                producer.send(b"x", timeout=60)
    assert "one side of the bridge has a" in exporting.routes[0].outcome.text


def test_a_gateway_that_dies_is_a_dead_peer_to_callers(serve, bridge, path):
    serve()
    with RpcBus.connect(bridge(path), timeout=60) as bus:
        with bus.wait(bus.call(b"x", 1), timeout=60):
            pass
        bridge.gateways[0]._link.close()
        cid = bus.call(b"x", 1)
        with pytest.raises(tachyon.PeerDeadError):
            bus.wait(cid, timeout=60)
