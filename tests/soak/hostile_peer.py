"""Peers that shake hands as they should, and then scribble, flood, stall, or go; and peers that do not even do that.

The library is in a process of its own (target.py). It must not crash, hang, leak, or raise what is not its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import raw
from common import HANG, Finding, Options, Report, Watchdog
from malice import fill, mutated_hello, odd_descriptors, scribble
from raw import HEAD, PAGE, Greeting, Peer, frame

import tachyon

PRESENT = 0.12  # seconds that a hostile peer stays
SPARSE = 1 << 30  # bytes of ring, none of them written
NEWCOMER = 30.0  # seconds within which one gets in, whoever stalls
STALLERS = 200
ROUNDS = {
    "connector": 30,
    "listener": 30,
    "half a connector": 15,
    "half a listener": 20,
    "flood": 2,
    "handlers": 2,
    "stallers": 1,
    "sparse": 1,
}


class Target:
    def __init__(self, folder: str, report: Report) -> None:
        self.report = report
        command = [sys.executable, str(Path(__file__).with_name("target.py")), folder]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.out: Any = self.process.stdout
        self.hear(HANG)

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def heard(self) -> bool:
        return bool(select.select([self.out], [], [], 0)[0])

    def hear(self, seconds: float) -> bytes:
        """What it answers; a Finding if it has crashed or hangs."""
        if not select.select([self.out], [], [], seconds)[0]:
            self.process.send_signal(signal.SIGUSR2)  # a traceback
            time.sleep(0.5)
            self.close()
            raise Finding("hang", "the target hung; its traceback is above")
        line = bytes(self.out.readline())
        if not line:
            code = self.process.wait()
            raise Finding("crash", f"the target ended with {code}")
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def misbehave(peer: Peer, source: random.Random, target: Target) -> None:
    manner = source.choice(["scribble", "scribble", "scribble", "fill", "stall", "close", "half close"])
    end = time.monotonic() + PRESENT
    if manner == "close":
        time.sleep(source.random() * 0.02)
        return
    if manner == "half close":
        peer.link.shutdown(source.choice([socket.SHUT_WR, socket.SHUT_RD]))
    if manner in ("fill", "scribble"):
        fill(peer, source, source.randrange(len(peer.memories)))
    while time.monotonic() < end and not target.heard():
        if manner == "scribble":
            for _ in range(source.choice([1, 1, 100])):
                scribble(peer, source)
        time.sleep(source.random() * 0.003)


class Campaign:
    def __init__(self, options: Options, report: Report, folder: str) -> None:
        self.report, self.folder, self.seed = report, folder, options.seed
        self.watchdog = Watchdog(options.state)
        self.target = Target(folder, report)
        self.before: list[int] = []
        self.tell("listen", False, 0)
        self.greeting = Greeting(f"{folder}/own")
        self.target.hear(HANG)
        self.rounds = [kind for kind in ROUNDS if kind not in options.skip]

    def tell(self, do: str, rpc: bool, seed: int, seconds: float = 2 * PRESENT, *, count: bool = False) -> None:
        path = f"{self.folder}/own"
        self.target.tell(do=do, rpc=rpc, path=path, capacity=4096, seed=seed, seconds=seconds, count=count)

    def judge(self, seconds: float = HANG) -> None:
        told = json.loads(self.target.hear(seconds))
        if "wrong" in told:
            raise Finding(told["fault"], told["wrong"])
        self.report.count(f"ended by {told['ended'] or 'nothing'}")
        if "held" in told:
            if self.before and any(now > then for now, then in zip(told["held"], self.before, strict=True)):
                raise Finding("leak", f"(descriptors, mappings) were {self.before}, are {told['held']}")
            self.before = self.before or told["held"]

    def round(self, n: int) -> None:
        source = random.Random(f"{self.seed}/{n}")
        kind = source.choices(self.rounds, [ROUNDS[each] for each in self.rounds])[0]
        if n < len(self.rounds):  # each of them at least once
            kind = self.rounds[n]
        rpc = source.random() < 0.5
        self.watchdog.round(f"round {n}: {kind} {'of an RpcBus' if rpc else 'of a Bus'}", 3 * HANG)
        getattr(self, "as_" + kind.replace(" ", "_"))(source, rpc)
        self.report.count(kind)
        self.report.count("hostile rounds")

    def as_connector(self, source: random.Random, rpc: bool) -> None:
        do = source.choice(["listen", "accept", "server"])
        rpc = rpc or do == "server"
        path = {"listen": "own", "accept": "rpc" if rpc else "bus", "server": "server"}[do]
        self.tell(do, rpc, source.randrange(1 << 32))
        with contextlib.suppress(OSError):
            peer = raw.shake_as_connector(f"{self.folder}/{path}", self.greeting.of(rpc))
            with contextlib.closing(peer):
                misbehave(peer, source, self.target)
        self.judge()

    def as_half_a_connector(self, source: random.Random, rpc: bool) -> None:
        do = source.choice(["listen", "accept", "server"])
        rpc = rpc or do == "server"
        path = {"listen": "own", "accept": "rpc" if rpc else "bus", "server": "server"}[do]
        self.tell(do, rpc, source.randrange(1 << 32))
        with contextlib.suppress(OSError):
            for _ in range(source.choice([1, 3, 20])):
                with raw.dial(f"{self.folder}/{path}") as client:
                    numbers = odd_descriptors(self.greeting, source, 0, 4096)
                    try:
                        hello = mutated_hello(self.greeting, source, rpc, None)
                        socket.send_fds(client, [hello], numbers[:200])
                    finally:
                        for number in numbers:
                            os.close(number)
                    time.sleep(source.choice([0, 0.001, 0.01]))
                    if source.random() < 0.3:
                        client.send(source.choice([b"R", b"X", b"RRRR"]))
        self.judge()

    @contextlib.contextmanager
    def listening(self) -> Any:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/own")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{self.folder}/own")
            server.listen()
            server.settimeout(raw.PATIENCE)
            yield server
        os.unlink(f"{self.folder}/own")

    def as_listener(self, source: random.Random, rpc: bool) -> None:
        capacity = source.choice([64, 128, 4096, 1 << 16, 1 << 20])
        with self.listening() as server, contextlib.suppress(OSError):
            self.tell("connect", rpc, source.randrange(1 << 32))
            peer = raw.shake_as_listener(server, self.greeting, rpc, capacity)
            with contextlib.closing(peer):
                misbehave(peer, source, self.target)
        self.judge()

    def as_half_a_listener(self, source: random.Random, rpc: bool) -> None:
        capacity = source.choice([64, 4096, 3, 0, 1 << 20])
        with self.listening() as server, contextlib.suppress(OSError):
            self.tell("connect", rpc, source.randrange(1 << 32), source.choice([0, 0.05]))
            client, _ = server.accept()
            client.settimeout(raw.PATIENCE)
            with client:
                if source.random() < 0.9:
                    client.recv(raw.HELLO_BYTES)
                numbers = odd_descriptors(self.greeting, source, 1 + rpc, capacity)
                try:
                    hello = mutated_hello(self.greeting, source, rpc, capacity)
                    if source.random() < 0.9:
                        socket.send_fds(client, [hello or b"x"], numbers[:200])
                finally:
                    for number in numbers:
                        os.close(number)
                if source.random() < 0.5:
                    client.send(source.choice([b"R", b"X", b"RRRR"]))
                time.sleep(source.choice([0, 0.06]))
        self.judge()

    def as_flood(self, source: random.Random, _: bool) -> None:
        """Replies that nobody asked for, faster than they can be gone through, until the target has answered.

        Whoever frees a large message clears all of its lines, and who fakes one writes the first. So a lap of writing
        takes a fraction of a lap of reading, and what lies ahead outlasts the time that a busy machine gives to others.
        """
        capacity, size = 1 << 26, 1 << 15
        with self.listening() as server:
            self.tell("wait", True, source.randrange(1 << 32), 5)
            peer = raw.shake_as_listener(server, self.greeting, True, capacity)
            with contextlib.closing(peer):
                memory, end = peer.memories[1], time.monotonic() + HANG
                head = frame(size - HEAD, 1, 1 << 40)[:HEAD]
                peer.word(memory, "producer_side", 1)
                while time.monotonic() < end and not self.target.heard():
                    for begin in range(PAGE, PAGE + capacity, size):
                        memory[begin : begin + HEAD] = head
                if not self.target.heard():
                    raise Finding("hang", "as long as replies come that nobody asked for, the target is not back")
        self.judge()

    def as_handlers(self, source: random.Random, _: bool) -> None:
        """A handler that raises what is no Exception costs its call, not the other callers."""
        self.tell("server", True, 0, 2)
        path = f"{self.folder}/server"
        fail, echo = (tachyon.tachyon_rpc(number)(bytes) for number in (2, 1))
        with tachyon.RpcBus.connect(path, timeout=5) as one, tachyon.RpcBus.connect(path, timeout=5) as other:
            with contextlib.suppress(tachyon.RpcError):
                fail.call(one, bytes(source.randrange(3)), timeout=5)
            try:
                answer = echo.call(other, b"x", timeout=5)
            except tachyon.TachyonError as error:
                raise Finding("cut off", f"one caller's handler ended another: {error!r}") from None
            if answer != b"x":
                raise Finding("torn", f"{answer!r} instead of the call's own bytes")
        self.judge()

    def as_sparse(self, source: random.Random, rpc: bool) -> None:
        """A listener that offers far more memory than it has: that must not become the connector's."""
        with self.listening() as server, contextlib.suppress(OSError):
            self.tell("connect", rpc, source.randrange(1 << 32), 5)
            peer = raw.shake_as_listener(server, self.greeting, rpc, SPARSE)
            peer.close()
        self.judge()

    def as_stallers(self, source: random.Random, rpc: bool) -> None:
        """Those of another process who take the memory, stall, and come again; and one who is honest."""
        path = f"{self.folder}/{'rpc' if rpc else 'bus'}"
        self.tell("accept", rpc, 0, NEWCOMER)
        pid = os.fork()
        if pid == 0:
            stall(path, self.greeting.of(rpc))
        try:
            time.sleep(0.5)
            begin = time.monotonic()
            kind: Any = tachyon.RpcBus if rpc else tachyon.Bus
            try:
                kind.connect(path, timeout=NEWCOMER - 1).close()
            except tachyon.TachyonError as error:
                raise Finding("hang", f"no way in among {STALLERS} stallers: {error}") from None
            self.report.latency(f"a newcomer among {STALLERS} stallers", time.monotonic() - begin)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.judge(2 * NEWCOMER)


def stall(path: str, hello: bytearray) -> None:
    clients: list[socket.socket] = []
    while True:
        for client in list(clients):
            with contextlib.suppress(BlockingIOError):
                if client.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                    clients.remove(client)
                    client.close()
        while len(clients) < STALLERS:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            try:
                client.connect(path)
                client.send(hello)
            except OSError:
                client.close()
                break
            clients.append(client)
        time.sleep(0.005)


def run(options: Options, report: Report) -> None:
    folder = tempfile.mkdtemp(prefix="soak-")
    begin = time.monotonic()
    campaign = Campaign(options, report, folder)
    n = options.start
    try:
        while time.monotonic() - begin < options.seconds and not report.hopeless:
            try:
                campaign.round(n)
                if n % 50 == 0:
                    time.sleep(0.1)
                    campaign.watchdog.round("looking for leaks")
                    campaign.tell("server", True, 0, 6 if n else 0.1, count=True)  # stallers are dropped after 5 s
                    campaign.judge()
            except (Finding, tachyon.TachyonError) as error:
                state = Path(options.state or os.devnull).read_text()
                report.caught(error, f"in {state}, seed {options.seed}")
                campaign.target.close()
                shutil.rmtree(folder)
                os.mkdir(folder)
                campaign = Campaign(options, report, folder)
            n += 1
    finally:
        campaign.target.close()
        shutil.rmtree(folder, ignore_errors=True)
        report.seconds = time.monotonic() - begin
    campaign.watchdog.over()
