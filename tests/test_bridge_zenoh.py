"""The bridge over Zenoh itself, as commands: what is killed, stalls, is cut, or shows the wrong certificate."""

import os
import signal
import subprocess
import sys
import time

import pytest
from bridge_commands import free_port, last_report, needs_zenoh

pytestmark = needs_zenoh
FEW = 200_000


def test_a_stream_goes_through_and_both_gateways_end_well(bridge):
    exporting, importing = bridge.pair("--json")
    consumer, producer = bridge.consumer(), bridge.producer(FEW)
    consumer.says("connected")
    producer.says("connected")
    producer.says("sent")
    consumer.says(f"{FEW} closed")
    producer.says("finished")
    for each in (producer, consumer, exporting, importing):
        each.ends(0)
    assert last_report(exporting)["ending"] == "ended: all of it went through"
    assert last_report(importing)["received"] == FEW


def test_a_file_goes_through_send_and_recv(bridge):
    exporting, importing = bridge.pair()
    data = os.urandom(5_000_000)
    (bridge.folder / "in").write_bytes(data)
    recv = bridge.start("recv", "-m", "tachyon", "recv", bridge.far, "-o", "out")
    send = bridge.start("send", "-m", "tachyon", "send", bridge.near, "in", "--timeout", 60)
    for each in (send, recv, exporting, importing):
        each.ends(0)
    assert (bridge.folder / "out").read_bytes() == data


@pytest.mark.parametrize("who", ["exporting", "importing"])
def test_a_gateway_that_is_killed_is_a_dead_peer_on_the_other_side(bridge, who):
    exporting, importing = bridge.pair("--grace", "1")
    consumer, producer = bridge.consumer(1000, 0.0), bridge.producer(10**9)
    consumer.says("connected")
    producer.says("connected")
    consumer.says("stalls")  # by then they are on their way
    killed, other = (exporting, importing) if who == "exporting" else (importing, exporting)
    killed.process.kill()
    # Who is at the killed one has lost its own peer, at once.
    count, end = consumer.line().split()
    assert int(count) > 0
    assert end == ("aborted" if who == "exporting" else "died")
    assert "PeerDeadError" in (producer.process.wait(60), producer.errors.read_text())[1]
    other.ends(3)
    consumer.ends(0)
    assert "the other gateway went away" in other.errors.read_text()


def test_a_producer_that_is_killed_is_told_after_all_that_it_sent(bridge):
    exporting, importing = bridge.pair()
    consumer, producer = bridge.consumer(1000, 0.0), bridge.producer(10**9)
    consumer.says("connected")
    producer.says("connected")
    consumer.says("stalls")  # by then they are on their way
    producer.process.kill()
    count, end = consumer.line().split()
    assert int(count) > 0
    assert end == "aborted"
    assert "the program here died" in exporting.ends(3)
    assert "the program over there died" in importing.ends(3)


def test_a_consumer_that_is_killed_is_told_to_the_producer(bridge):
    exporting, importing = bridge.pair()
    consumer, producer = bridge.consumer(1000, 0.0), bridge.producer(10**9)
    consumer.says("connected")
    producer.says("connected")
    consumer.says("stalls")  # by then they are on their way
    consumer.process.kill()
    assert "the program here died" in importing.ends(3)
    assert "the program over there died" in exporting.ends(3)
    assert "PeerDeadError" in (producer.process.wait(60), producer.errors.read_text())[1]


def test_sigterm_sends_what_the_ring_holds_and_ends_with_143(bridge):
    exporting, importing = bridge.pair("--json")
    consumer, producer = bridge.consumer(1000, 0.0), bridge.producer(10**9)
    consumer.says("connected")
    producer.says("connected")
    consumer.says("stalls")  # by then they are on their way
    exporting.process.send_signal(signal.SIGTERM)
    exporting.ends(143)
    count, end = consumer.line().split()
    assert end == "aborted"
    assert int(count) == last_report(exporting)["sent"]
    importing.ends(3)


def test_nobody_within_the_timeout_ends_with_4(bridge):
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    text = bridge.gateway("import-rpc", "x", bridge.far, "--connect", endpoint, "--timeout", "0.5").ends(4)
    assert "within 0.5 seconds: x: connecting" in text
    text = bridge.exporting("--listen", f"tcp/127.0.0.1:{free_port()}", "--timeout", "1.5").ends(4)
    assert f"x: waiting for the program at {bridge.near}" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--connect", "tcp/192.0.2.1:7447"], "leaves this machine without encryption"),
        (["--listen", "tcp/0.0.0.0:7447"], "leaves this machine without encryption"),
        (["--listen", "tls/0.0.0.0:7447"], "needs the authority"),
        (["--listen", "tls/0.0.0.0:7447", "--insecure"], "needs a certificate"),
        (["--connect", "tls/localhost:7447"], "needs the authority"),
        (["--connect", "localhost:7447"], "is not an endpoint"),
        (["--connect", "tcp/localhost:7447", "--key", "x"], "belong together"),
        (["--connect", "tcp/localhost:7447", "--ca", "missing"], "cannot be read"),
        (["--config", "/dev/null"], "configuration of Zenoh"),
        ([], "name an endpoint"),
        (["sideways", "a", "b"], "is no route"),
        (["export", "a"], "takes PATH NAME"),
        (["export", "a", "b c"], "is not a name"),
    ],
)
def test_what_cannot_be_is_wrong_usage(bridge, words, text):
    first = [] if words and words[0] in ("sideways", "export") else ["export-rpc", "path", "name"]
    words = (
        words
        if words and not first and "--connect" in words
        else [*words, *([] if first else ["--connect", "tcp/[::1]:7"])]
    )
    assert text in bridge.gateway(*first, *words).ends(2)


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        ("{listen: {endpoints: ['tcp/0.0.0.0:7447']}}", "leaves this machine without encryption"),
        ("{connect: {endpoints: {client: ['tcp/192.0.2.1:7447']}}}", "leaves this machine without encryption"),
        ("{listen: {endpoints: ['tls/0.0.0.0:7447']}}", "would let in anybody"),
    ],
)
def test_a_configuration_file_is_held_to_the_same_rules(bridge, configuration, text):
    (bridge.folder / "zenoh.json5").write_text(configuration)
    assert text in bridge.exporting("--config", "zenoh.json5").ends(2)


def test_a_configuration_file_says_what_options_do_not(bridge):
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    for name, mode, side in (("near", "client", "connect"), ("far", "peer", "listen")):
        (bridge.folder / f"{name}.json5").write_text(f"{{mode: '{mode}', {side}: {{endpoints: ['{endpoint}']}}}}")
    exporting, importing = bridge.exporting("--config", "near.json5"), bridge.importing("--config", "far.json5")
    consumer, producer = bridge.consumer(), bridge.producer(10_000)
    for each in (producer, consumer, exporting, importing):
        each.ends(0)


def test_several_routes_go_both_ways_in_one_command(bridge):
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    folder = bridge.folder
    bridge.gateway("export", folder / "a", "a", "import", "b", folder / "b2", "--listen", endpoint)
    bridge.gateway("import", "a", folder / "a2", "export", folder / "b", "b", "--connect", endpoint)
    transfers = []
    for name in "ab":
        (folder / f"{name}.in").write_bytes(name.encode() * 1000)
        transfers.append(bridge.start("recv", "-m", "tachyon", "recv", folder / f"{name}2", "-o", f"{name}.out"))
        transfers.append(bridge.start("send", "-m", "tachyon", "send", folder / name, f"{name}.in", "--timeout", 60))
    for each in (*transfers, *bridge.started[:2]):
        each.ends(0)
    for name in "ab":
        assert (folder / f"{name}.out").read_bytes() == name.encode() * 1000


def test_calls_go_through(bridge):
    (bridge.folder / "shop.py").write_text(
        "import tachyon\ndispatcher = tachyon.RpcDispatcher()\n"
        "@dispatcher.handler(7)\ndef answer(request): return bytes(request).upper()\n"
    )
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    bridge.start("serve", "-m", "tachyon", "serve", "shop:dispatcher", bridge.near)
    bridge.gateway("export-rpc", bridge.near, "shop", "--listen", endpoint)
    gateway = bridge.gateway("import-rpc", "shop", bridge.far, "--connect", endpoint)
    for _ in range(100):
        call = bridge.start("call", "-m", "tachyon", "call", bridge.far, 7, "two apples", "--timeout", 60)
        if call.process.wait(60) == 0:
            break
        time.sleep(0.1)  # until the server is there
    assert call.process.stdout.read() == b"TWO APPLES"
    gateway.process.send_signal(signal.SIGTERM)
    gateway.ends(143)


@pytest.mark.parametrize("protocol", ["tls", "quic"])
def test_certificates_on_both_sides(bridge, protocol):
    near, far = bridge.certificates("ca", "near", "far")
    endpoint = f"{protocol}/localhost:{free_port()}"
    importing = bridge.importing("--listen", endpoint, *far)
    exporting = bridge.exporting("--connect", endpoint, *near)
    consumer, producer = bridge.consumer(), bridge.producer(10_000)
    for each in (producer, consumer, exporting, importing):
        each.ends(0)


@pytest.mark.parametrize("wrong", ["authority", "none", "name"])
def test_a_wrong_certificate_connects_to_nobody(bridge, wrong):
    far, near = bridge.certificates("ca", "far", "near", hosts="DNS:elsewhere" if wrong == "name" else "DNS:localhost")
    if wrong == "authority":
        (near,) = bridge.certificates("other", "near")
    near = ["--ca", "ca.pem", *([] if wrong == "none" else near[2:])]
    endpoint = f"tls/localhost:{free_port()}"
    importing = bridge.importing("--listen", endpoint, *far, "--timeout", "2")
    exporting = bridge.exporting("--connect", endpoint, *near, "--timeout", "2")
    consumer, producer = bridge.consumer(), bridge.producer(10)
    consumer.says("connected")
    producer.says("connected")
    assert "waiting for the other side" in importing.ends(4)
    assert "connecting" in exporting.ends(4)
    assert consumer.line() == "0 aborted"


def test_a_router_in_the_middle_that_is_killed_and_comes_again_costs_nothing(bridge):
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    router = bridge.router(endpoint)
    gateways = [bridge.exporting("--connect", endpoint), bridge.importing("--connect", endpoint)]
    count = 5 * FEW
    consumer, producer = bridge.consumer(1000, 0.5), bridge.producer(count)
    consumer.says("connected")
    consumer.says("stalls")
    for _ in range(2):
        router.process.kill()
        router.process.wait()
        time.sleep(0.5)
        router = bridge.router(endpoint)
        time.sleep(1)
    consumer.says(f"{count} closed", 100)
    for each in (producer, consumer, *gateways):
        each.ends(0)


def test_a_full_disk_for_what_the_gateways_say_harms_nothing(bridge):
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    with open("/dev/full", "wb") as full:
        importing = bridge.importing("--listen", endpoint, stderr=full)
        exporting = bridge.gateway("export", bridge.near, "x", "--json", "--connect", endpoint, stderr=full)
    consumer, producer = bridge.consumer(), bridge.producer(FEW)
    for each in (producer, consumer, exporting, importing):
        each.ends(0)


def test_a_reader_of_the_reports_that_goes_harms_nothing(bridge):
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    reading, writing = os.pipe()
    importing = bridge.importing("--listen", endpoint)
    words = ["-m", "tachyon", "bridge", "export", str(bridge.near), "x", "--json", "--connect", endpoint]
    exporting = subprocess.Popen([sys.executable, *words], stdout=writing, cwd=bridge.folder)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    consumer, producer = bridge.consumer(), bridge.producer(FEW)
    for each in (producer, consumer, importing):
        each.ends(0)
    assert exporting.wait(60) == 0


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("who", "seconds"),  # Zenoh gives up after 5 seconds, or 10
    [(1, 2), pytest.param(0, 2, marks=LONG), pytest.param(0, 12, marks=LONG), pytest.param(1, 12, marks=LONG)],
)
def test_a_gateway_that_is_stopped_for_a_while_costs_time_and_nothing_else(bridge, who, seconds):
    gateways = bridge.pair()
    consumer, producer = bridge.consumer(1000, 0.0), bridge.producer(5 * FEW)
    consumer.says("connected")
    consumer.says("stalls")  # by then they are on their way
    gateways[who].process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    gateways[who].process.send_signal(signal.SIGCONT)
    consumer.says(f"{5 * FEW} closed", 100)
    for each in (producer, consumer, *gateways):
        each.ends(0)


def stall(bridge, seconds):
    """Two gateways whose consumer stalls: their most memory meanwhile, in MB above what they had before."""
    exporting, importing = bridge.pair("--window", "1M", "--capacity", "1M", "--grace", "5")
    consumer, producer = bridge.consumer(1000, seconds), bridge.producer(FEW)
    consumer.says("connected")
    before = [each.memory() for each in (exporting, importing)]
    consumer.says("stalls")
    most = list(before)
    end = time.monotonic() + seconds
    while time.monotonic() < end - 0.2:
        most = [max(old, each.memory()) for old, each in zip(most, (exporting, importing), strict=True)]
        time.sleep(0.05)
    consumer.says(f"{FEW} closed")
    for each in (producer, consumer, exporting, importing):
        each.ends(0)
    return [after - start for start, after in zip(before, most, strict=True)]


def test_a_consumer_that_stalls_costs_a_window_and_a_ring_of_memory(bridge):
    assert max(stall(bridge, 2)) < 24  # Zenoh's own buffers are in it


@pytest.mark.long
def test_a_consumer_that_stalls_for_30_seconds_costs_no_more(bridge):
    growth = stall(bridge, 30)
    print(f"memory of the gateways grew by {growth[0]:.1f} and {growth[1]:.1f} MB")
    assert max(growth) < 24
