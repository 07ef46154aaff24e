"""The bridge between two network namespaces, over a cable that is cut: nothing is lost, nothing out of order."""

import os
import subprocess
import sys
import time

import pytest
from bridge_commands import needs_zenoh
from example_programs import EXAMPLES

pytestmark = needs_zenoh


def through_cuts(bridge, spaces, count, cuts):
    """Send `count` messages that are checked, and cut the cable while they go, for each of `cuts` seconds."""
    endpoint = "tcp/10.77.0.2:7447"
    importing = bridge.importing("--listen", endpoint, "--insecure", space=spaces.far)
    exporting = bridge.exporting("--connect", endpoint, "--insecure", space=spaces.near)
    consumer, producer = bridge.consumer(1000, 0.0), bridge.producer(count)
    consumer.says("connected")
    consumer.says("stalls")  # by then they are on their way
    for seconds in cuts:
        spaces.cut()
        time.sleep(seconds)
        spaces.mend()
        time.sleep(1.0)
    consumer.says(f"{count} closed", 600)
    producer.says("connected")
    producer.says("sent")
    producer.says("finished")
    for each in (producer, consumer, exporting, importing):
        each.ends(0)


@pytest.mark.parametrize(
    "seconds", [pytest.param(0.2, marks=pytest.mark.long), 1, pytest.param(4, marks=pytest.mark.long)]
)
def test_a_cable_that_is_cut_costs_time_and_nothing_else(bridge, spaces, seconds):
    through_cuts(bridge, spaces, 1_000_000, [seconds])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_million_messages_go_through_a_series_of_cuts(bridge, spaces):
    through_cuts(bridge, spaces, 10_000_000, [0.2, 1, 0.2, 4, 1, 0.2, 4, 0.2])


def test_a_cable_that_stays_cut_is_a_dead_peer_after_lease_and_grace(bridge, spaces):
    (bridge.folder / "lease.json5").write_text("{transport: {link: {tx: {lease: 2000}}}}")
    endpoint, options = "tcp/10.77.0.2:7447", ["--insecure", "--grace", "2", "--config", "lease.json5"]
    importing = bridge.importing("--listen", endpoint, *options, space=spaces.far)
    exporting = bridge.exporting("--connect", endpoint, *options, space=spaces.near)
    consumer, producer = bridge.consumer(1000, 0.0), bridge.producer(10**9)
    consumer.says("connected")
    consumer.says("stalls")
    spaces.cut()
    count, end = consumer.line().split()
    assert int(count) >= 1000
    assert end == "aborted"
    assert "the other gateway went away" in importing.ends(3)
    assert "the other gateway went away" in exporting.ends(3)
    assert "PeerDeadError" in (producer.process.wait(60), producer.errors.read_text())[1]


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only in the source tree")
def test_the_example_of_two_machines_finds_the_same_on_both(spaces):
    script = EXAMPLES / "two_machines" / "run.sh"
    done = subprocess.run(
        [script, "30", "0.2"], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the same on both machines\n")
    assert "a: ended: all of it went through" in done.stderr
    assert "b: ended: all of it went through" in done.stderr
