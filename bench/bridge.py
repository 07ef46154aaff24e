# ruff: noqa: D102, D103, D105, D107
"""The figures of the bridge, as ratios within one run: python bench/bridge.py [--only 1,2,3,4,5,6]

Programs, gateways and raw Zenoh are processes of this machine, over loopback. Needs pip install 'tachyon-ipc[zenoh]',
and openssl for part 4: about two minutes. Part 6, some minutes more, runs the tests in which cables are cut, gateways
and consumers stop and routers are killed, in their long form: as root, for the network namespaces, and with pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tachyon

RING = 4 << 20
SAMPLES = 3000  # of latency, one a millisecond
PATIENCE = 60.0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


# ---- the processes ---------------------------------------------------------------------------------------------------


def gateway(*words: str) -> int:
    from tachyon.cli.main import main

    return main(["bridge", *words, "--quiet"])


def zenoh_session(side: str, port: str, queue: str = "2"):
    """`queue`: batches that may wait to be sent; 2 as Zenoh comes, 16 as the bridge has it."""
    import zenoh

    from tachyon.bridge._zenoh import Endpoints, ZenohLink

    endpoint = (f"tcp/127.0.0.1:{port}",)
    link = ZenohLink(Endpoints(listen=endpoint) if side == "listen" else Endpoints(connect=endpoint))
    link._config.insert_json5("transport/link/tx/queue/size/data", queue)
    while not link.open():
        pass
    return zenoh, link._session


def publisher(zenoh, session, express: bool):
    made = session.declare_publisher("k", congestion_control=zenoh.CongestionControl.BLOCK, express=express)
    while not made.matching_status.matching:
        time.sleep(0.05)
    time.sleep(0.2)
    return made


def producer(path: str, count: str, size: str) -> None:
    with tachyon.Bus.connect(path, timeout=PATIENCE) as bus:
        batch = [bytes(int(size))] * 256
        with contextlib.suppress(tachyon.PeerDeadError):  # part 5
            for _ in range(int(count) // 256):
                bus.send_many(batch)
            bus.finish()


def consumer(path: str) -> None:
    with tachyon.Bus.listen(path, RING) as bus:
        count, begin = 0, 0.0
        try:
            while True:
                with bus.drain_batch(4096) as batch:
                    begin = begin or time.perf_counter()
                    count += len(batch)
        except tachyon.PeerClosedError:
            print(count / (time.perf_counter() - begin))
        except tachyon.PeerDeadError:
            print(time.monotonic())


def naive_export(path: str, port: str) -> None:
    zenoh, session = zenoh_session("connect", port)
    with tachyon.Bus.listen(path, RING) as bus:
        put = publisher(zenoh, session, express=False).put
        for message in bus:
            put(message.data)
        put(b"")
        time.sleep(1)
    session.close()


def naive_import(path: str, port: str) -> None:
    _, session = zenoh_session("listen", port)
    done = threading.Event()
    with tachyon.Bus.connect(path, timeout=PATIENCE) as bus:

        def deliver(sample) -> None:
            data = sample.payload.to_bytes()
            if data:
                bus.send(data)
            else:
                done.set()

        session.declare_subscriber("k", deliver)
        done.wait(PATIENCE)
        bus.finish()
    os._exit(0)


def raw_put(port: str, count: str, size: str, queue: str) -> None:
    zenoh, session = zenoh_session("connect", port, queue)
    put = publisher(zenoh, session, express=False).put
    data = bytes(int(size))
    for _ in range(int(count)):
        put(data)
    time.sleep(2)
    os._exit(0)


def raw_take(port: str, count: str) -> None:
    _, session = zenoh_session("listen", port)
    taken = []
    done = threading.Event()

    def deliver(sample) -> None:
        sample.payload.to_bytes()
        if not taken:
            taken.append(time.perf_counter())
            taken.append(0)
        taken[1] += 1
        if taken[1] == int(count):
            print(taken[1] / (time.perf_counter() - taken[0]), flush=True)
            done.set()

    session.declare_subscriber("k", deliver)
    done.wait(PATIENCE)
    os._exit(0)


def tick(send) -> None:
    following = time.monotonic()
    for _ in range(SAMPLES):
        following += 0.001
        time.sleep(max(0.0, following - time.monotonic()))
        send(struct.pack("<Q", time.monotonic_ns()) + bytes(24))


def median(delays: list[int]) -> None:
    delays = sorted(delays[SAMPLES // 10 :])
    print(delays[len(delays) // 2] / 1e3, delays[len(delays) * 99 // 100] / 1e3, flush=True)


def bus_ticks(path: str) -> None:
    with tachyon.Bus.connect(path, timeout=PATIENCE) as bus:
        tick(bus.send)
        bus.finish()


def bus_delays(path: str) -> None:
    with tachyon.Bus.listen(path, RING) as bus:
        delays = [time.monotonic_ns() - struct.unpack_from("<Q", message.data)[0] for message in bus]
        median(delays)


def raw_ticks(port: str) -> None:
    zenoh, session = zenoh_session("connect", port)
    tick(publisher(zenoh, session, express=True).put)
    time.sleep(1)
    os._exit(0)


def raw_delays(port: str) -> None:
    _, session = zenoh_session("listen", port)
    delays: list[int] = []
    session.declare_subscriber(
        "k", lambda x: delays.append(time.monotonic_ns() - struct.unpack_from("<Q", x.payload.to_bytes())[0])
    )
    end = time.monotonic() + PATIENCE
    while len(delays) < SAMPLES and time.monotonic() < end:
        time.sleep(0.1)
    median(delays)
    os._exit(0)


ROLES = (
    *(gateway, producer, consumer, naive_export, naive_import, raw_put, raw_take),
    *(bus_ticks, bus_delays, raw_ticks, raw_delays),
)


# ---- the parts -------------------------------------------------------------------------------------------------------


class Run:
    """Processes in one folder, ended with it."""

    def __init__(self) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="tachyon-bridge-")
        self.folder = Path(self.temporary.name)
        self.near, self.far = str(self.folder / "near"), str(self.folder / "far")
        self.port = str(free_port())
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, role, *words: object) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, __file__, "--role", role.__name__, *map(str, words)]
        self.started.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=self.folder))
        return self.started[-1]

    def gateways(self, tls: bool, *words: str):
        protocol, options = "tcp", ([], [])
        if tls:
            protocol, options = "tls", certificates(self.folder)
        endpoint = f"{protocol}/localhost:{self.port}"
        far = self.start(gateway, "import", "x", self.far, "--listen", endpoint, *options[0], *words)
        near = self.start(gateway, "export", self.near, "x", "--connect", endpoint, *options[1], *words)
        return near, far

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.started:
            each.kill()
            each.wait()
        self.temporary.cleanup()


def certificates(folder: Path) -> tuple[list[str], list[str]]:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "rsa:2048", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (folder / "ext").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    made = []
    for name in ("far", "near"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext"]
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
        made.append(["--ca", "ca.pem", "--certificate", f"{name}.pem", "--key", f"{name}.key"])
    return made[0], made[1]


def number(process: subprocess.Popen[bytes], place: int = 0) -> float:
    out, _ = process.communicate(timeout=PATIENCE)
    return float(out.split()[place])


def through_gateways(count: int, size: int, tls: bool = False) -> float:
    with Run() as run:
        run.gateways(tls)
        reading = run.start(consumer, run.far)
        time.sleep(1.5)  # until all have found each other
        run.start(producer, run.near, count, size)
        return number(reading)


def one_put_each(count: int, size: int) -> float:
    with Run() as run:
        run.start(naive_import, run.far, run.port)
        run.start(naive_export, run.near, run.port)
        reading = run.start(consumer, run.far)
        time.sleep(1.5)
        run.start(producer, run.near, count, size)
        return number(reading)


def raw(count: int, size: int, queue: int = 2) -> float:
    with Run() as run:
        reading = run.start(raw_take, run.port, count)
        run.start(raw_put, run.port, count, size, queue)
        return number(reading)


def delay_through_gateways() -> float:
    with Run() as run:
        run.gateways(False)
        reading = run.start(bus_delays, run.far)
        time.sleep(1.5)
        run.start(bus_ticks, run.near)
        return number(reading)


def delay_of_zenoh() -> float:
    with Run() as run:
        reading = run.start(raw_delays, run.port)
        run.start(raw_ticks, run.port)
        return number(reading)


def time_to_notice(grace: float) -> float:
    with Run() as run:
        near, _ = run.gateways(False, "--grace", str(grace))
        reading = run.start(consumer, run.far)
        time.sleep(1.5)
        run.start(producer, run.near, 1 << 40, 32)
        time.sleep(1.0)
        killed = time.monotonic()
        near.kill()
        return number(reading) - killed


def verdict(name: str, ratio: float, least: float | None = None, most: float | None = None, unit: str = "") -> bool:
    met = (least is None or ratio >= least) and (most is None or ratio <= most)
    wanted = f"at least {least}" if least is not None else f"at most {most}"
    print(f"  {name}: {ratio:.2f}{unit} ({wanted}{unit}): {'met' if met else 'NOT MET'}", flush=True)
    return met


def part_1() -> bool:
    ours, theirs = through_gateways(8 << 20, 32), one_put_each(400 << 10, 32)
    print(f"1. 32 B through two gateways: {ours / 1e6:.2f} M/s; one put for each: {theirs / 1e6:.3f} M/s")
    ratio = verdict("ratio", ours / theirs, least=10)
    return verdict("rate", ours / 1e6, least=4, unit=" M/s") and ratio


def part_2() -> bool:
    ours, theirs, quicker = through_gateways(20 << 10, 64 << 10), raw(20_000, 64 << 10), raw(20_000, 64 << 10, 16)
    print(f"2. 64 KiB through two gateways: {ours:,.0f}/s; raw Zenoh: {theirs:,.0f}/s as it comes, ", end="")
    print(f"{quicker:,.0f}/s with the bridge's longer queue ({ours / quicker:.2f})")
    return verdict("ratio to Zenoh as it comes", ours / theirs, least=0.6)


def part_3() -> bool:
    ours, theirs = delay_through_gateways(), delay_of_zenoh()
    print(f"3. one way at 1 kHz, median: through two gateways {ours:.0f} µs; Zenoh alone {theirs:.0f} µs")
    return verdict("ratio", ours / theirs, most=1.5)


def part_4() -> bool:
    plain, encrypted = through_gateways(8 << 20, 32), through_gateways(8 << 20, 32, tls=True)
    print(f"4. 32 B, plain: {plain / 1e6:.2f} M/s; certificates on both sides: {encrypted / 1e6:.2f} M/s")
    small = verdict("ratio", encrypted / plain, least=0.7)
    plain, encrypted = through_gateways(20 << 10, 64 << 10), through_gateways(20 << 10, 64 << 10, tls=True)
    print(f"   64 KiB, plain: {plain:,.0f}/s; certificates on both sides: {encrypted:,.0f}/s")
    return verdict("ratio", encrypted / plain, least=0.7) and small


def part_5() -> bool:
    seconds = time_to_notice(2.0)
    print("5. a gateway is killed, with a lease of 10 s and a grace of 2 s: PeerDeadError over there")
    return verdict("after", seconds, most=12.0, unit=" s")


def part_6() -> bool:
    print("6. cuts, gateways and a consumer that stop, a router that is killed: 0 lost, 0 out of order, memory bounded")
    tests = Path(__file__).parent.parent / "tests"
    files = [tests / "test_bridge_zenoh.py", tests / "test_bridge_netns.py"]
    words = ["-m", "pytest", "-q", "-s", "--long", "-p", "no:cacheprovider", "-k", "costs or cuts", *map(str, files)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    said = done.stdout.strip().splitlines()
    print("  " + "\n  ".join(each for each in said if "memory of" in each or each == said[-1]))
    met = done.returncode == 0 and "skipped" not in said[-1]
    print(f"  all of them: {'met' if met else 'NOT MET'}", flush=True)
    return met


def main() -> int:
    parts = {1: part_1, 2: part_2, 3: part_3, 4: part_4, 5: part_5, 6: part_6}
    if "--role" in sys.argv[1:2]:
        role = {each.__name__: each for each in ROLES}[sys.argv[2]]
        role(*sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="1,2,3,4,5,6", help="these parts")
    chosen = [int(each) for each in parser.parse_args().only.split(",")]
    met = [parts[each]() for each in chosen]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
