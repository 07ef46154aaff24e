"""`python -m tachyon demo`, and how it counts and writes quantities."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import PATIENCE

from tachyon.cli.histogram import duration, histogram, quantile
from tachyon.cli.meter import size_text


def test_the_demo_succeeds(command):
    out, said = command("demo").ends(0)
    text = out.decode()
    assert "the same" in text
    assert "messages in" in text
    assert "█" in text
    for word in ("p50", "p99", "p99.9", "max", "n "):
        assert word in text
    assert said == ""


def test_the_demo_speaks_ascii_where_it_must(command):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    out, _ = command("demo", env=environment).ends(0)
    assert "##" in out.decode("ascii")


@pytest.mark.parametrize(
    "harm",
    [
        "import hashlib; f = hashlib.blake2b; hashlib.blake2b = lambda **how: f(b'x', **how)",  # another digest
        "demo.FILE = demo.CHUNK",  # another count of files
        "demo._import_folder = lambda: '/'; demo.sys.executable = '/bin/false'",  # no second process
    ],
)
def test_the_demo_fails_where_the_two_sides_differ(harm, tmp_path):
    code = f"import sys\nfrom tachyon.cli import demo\n{harm}\nsys.exit(demo.demo())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"python -m tachyon demo: " in done.stderr


@pytest.mark.parametrize(
    "samples",
    [[5], [0, 0], [7] * 1000, list(range(1, 100_000)), [400] * 990 + [10**9] * 10, [1, 10**12], list(range(999_990))],
)
def test_the_histogram_counts_every_sample(samples):
    lines = histogram(samples)
    assert len(lines) <= 25
    shares = [float(line.split()[-1].rstrip("%")) for line in lines if line.endswith("%")]
    beyond = [int(line.split(": ")[1].split()[0].replace(",", "")) for line in lines if " and more: " in line]
    assert sum(shares) + 100 * sum(beyond) / len(samples) == pytest.approx(100, abs=0.1 * len(lines))
    assert "█" * 40 in "".join(lines)


def test_a_quantile_is_a_sample():
    samples = list(range(10, 1010, 10))
    assert [quantile(samples, share) for share in (0, 0.5, 0.99, 0.999, 1)] == [10, 500, 990, 1000, 1000]
    assert quantile([3], 0.5) == 3


def test_quantities_are_short():
    assert [duration(ns) for ns in (0, 999, 999.7, 1240, 999_700, 2e9)] == [
        "0 ns",
        "999 ns",
        "1 µs",
        "1.24 µs",
        "1 ms",
        "2 s",
    ]
    assert [size_text(n) for n in (0, 999, 1000, 999_600, 12_345_678, 2.5e12)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "1 MB",
        "12.3 MB",
        "2.5 TB",
    ]
