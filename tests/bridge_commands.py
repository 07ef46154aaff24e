"""`python -m tachyon bridge` for the tests: two gateways, programs at both ends, certificates, network namespaces."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from conftest import PATIENCE

needs_zenoh = pytest.mark.skipif(importlib.util.find_spec("zenoh") is None, reason="needs eclipse-zenoh")

ROUTER = """
import json, sys, zenoh
config = zenoh.Config()
for path, value in {"mode": "router", "listen/endpoints": [sys.argv[1]], "scouting/multicast/enabled": False}.items():
    config.insert_json5(path, json.dumps(value))
session = zenoh.open(config)
print("up", flush=True)
sys.stdin.read()
"""
# Numbered messages of 8 to 300 bytes, each of which can be checked.
PRODUCER = """
import struct, sys, zlib, tachyon
path, count = sys.argv[1], int(sys.argv[2])
def message(number):
    body = struct.pack("<Q", number) + bytes([number % 251]) * (number * 7919 % 293)
    return body + struct.pack("<I", zlib.crc32(body))
with tachyon.Bus.connect(path, timeout=60) as bus:
    print("connected", flush=True)
    for start in range(0, count, 256):
        bus.send_many([message(number) for number in range(start, min(start + 256, count))])
    print("sent", flush=True)
    bus.finish()
print("finished", flush=True)
"""
CONSUMER = """
import struct, sys, time, zlib, tachyon
path, stall_at, stall = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
count, end = 0, "closed"
with tachyon.Bus.listen(path, 1 << 20) as bus:
    print("connected", flush=True)
    try:
        while True:
            with bus.drain_batch(4096) as batch:
                for each in batch:
                    data = bytes(each)
                    if struct.unpack_from("<Q", data)[0] != count: sys.exit(f"number {count} is missing")
                    if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]: sys.exit(f"{count} is damaged")
                    count += 1
                    if count == stall_at:
                        print("stalls", flush=True)
                        time.sleep(stall)
    except tachyon.PeerDeadError as error:
        end = error.reason
    print(f"{count} {end}", flush=True)
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Program:
    """A process of a test: its lines, with a watchdog. In a network namespace if it is given one."""

    def __init__(self, words, folder, name, space=None, **options):
        self.errors = folder / f"{name}.err"
        prefix = ["ip", "netns", "exec", space] if space else []
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=options.pop("stderr", errors),
                cwd=folder,
                **options,
            )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.pid = self.process.pid
        self.rest = b""

    def line(self, patience=PATIENCE):
        end = time.monotonic() + patience
        while b"\n" not in self.rest:
            if chunk := self.process.stdout.read():
                self.rest += chunk
            else:
                assert chunk is None, f"it ended: {self.errors.read_text()}"
                assert time.monotonic() < end, f"it says nothing: {self.errors.read_text()}"
                time.sleep(0.005)
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def says(self, line, patience=PATIENCE):
        said = self.line(patience)
        assert said == line, f"{said!r}; {self.errors.read_text()}"

    def ends(self, code=0, patience=PATIENCE):
        assert self.process.wait(patience) == code, self.errors.read_text()
        text = self.errors.read_text()
        assert "Traceback" not in text, text
        return text

    def memory(self):
        """Megabytes of it in memory, now."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Bridge:
    """Two gateways, and what else a test starts, in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []
        self.near, self.far = folder / "near", folder / "far"

    def start(self, name, *words, space=None, **options):
        self.started.append(Program(words, self.folder, f"{len(self.started)}-{name}", space, **options))
        return self.started[-1]

    def gateway(self, *words, space=None, **options):
        return self.start("gateway", "-m", "tachyon", "bridge", *words, space=space, **options)

    def exporting(self, *words, **options):
        return self.gateway("export", self.near, "x", *words, **options)

    def importing(self, *words, **options):
        return self.gateway("import", "x", self.far, *words, **options)

    def pair(self, *words):
        """Both gateways, over loopback: (exporting, importing)."""
        endpoint = f"tcp/127.0.0.1:{free_port()}"
        importing = self.importing("--listen", endpoint, *words)
        return self.exporting("--connect", endpoint, *words), importing

    def producer(self, count, **options):
        return self.start("producer", "-c", PRODUCER, self.near, count, **options)

    def consumer(self, stall_at=-1, stall=0, **options):
        return self.start("consumer", "-c", CONSUMER, self.far, stall_at, stall, **options)

    def router(self, endpoint, **options):
        program = self.start("router", "-c", ROUTER, endpoint, **options)
        program.says("up")
        return program

    def certificates(self, authority, *names, hosts="DNS:localhost,IP:127.0.0.1"):
        """Options for a gateway that shows a certificate of `authority`, for each name."""
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl")

        def openssl(*words):
            subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True, timeout=60)

        key = ["-newkey", "rsa:2048", "-nodes"]
        openssl(
            "req", "-x509", *key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-subj", f"/CN={authority}"
        )
        (self.folder / "ext").write_text(
            f"subjectAltName={hosts}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        options = []
        for name in names:
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            signing = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "ext"]
            openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
            options.append(["--ca", f"{authority}.pem", "--certificate", f"{name}.pem", "--key", f"{name}.key"])
        return options

    def close(self):
        for each in self.started:
            each.close()


@pytest.fixture
def bridge(tmp_path):
    made = Bridge(tmp_path)
    yield made
    made.close()


class Spaces:
    """Two network namespaces with a cable between them: near 10.77.0.1, far 10.77.0.2."""

    def __init__(self):
        self.near, self.far = f"tqn{os.getpid()}", f"tqf{os.getpid()}"

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)

    def make(self):
        for space in (self.near, self.far):
            self.ip("netns", "add", space)
        ends = f"vn{os.getpid()}", f"vf{os.getpid()}"
        self.ip("link", "add", ends[0], "netns", self.near, "type", "veth", "peer", "name", ends[1], "netns", self.far)
        for space, end, address in ((self.near, ends[0], 1), (self.far, ends[1], 2)):
            self.ip("-n", space, "addr", "add", f"10.77.0.{address}/24", "dev", end)
            self.ip("-n", space, "link", "set", end, "up")
            self.ip("-n", space, "link", "set", "lo", "up")
        self.cable = ends[0]

    def cut(self):
        self.ip("-n", self.near, "link", "set", self.cable, "down")

    def mend(self):
        self.ip("-n", self.near, "link", "set", self.cable, "up")

    def close(self):
        for space in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=30)


@pytest.fixture
def spaces():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    made = Spaces()
    try:
        made.make()
    except subprocess.CalledProcessError as error:
        made.close()
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    yield made
    made.close()


def last_report(program):
    """Of a gateway with --json that has ended: its last line."""
    program.process.stdout.flush()
    lines = (program.rest + (program.process.stdout.read() or b"")).splitlines()
    return json.loads(lines[-1])


__all__ = ["Bridge", "bridge", "free_port", "last_report", "needs_zenoh", "spaces"]
