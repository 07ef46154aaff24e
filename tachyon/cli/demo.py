"""`python -m tachyon demo`: a stream whose every byte is checked, round trips, and the speed of the bus beside others.

The second process is this module run as a program: `python -m tachyon.cli.demo FOLDER`. Its verdict comes back through
its stdout, not through a bus: what is tested does not vouch for itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tachyon import Bus, PeerClosedError, TachyonError, TachyonTimeoutError
from tachyon.cli.bench import machine, pairs
from tachyon.cli.bench.ours import Into, Plain
from tachyon.cli.bench.peers import Pipe, Socket
from tachyon.cli.bench.report import rate
from tachyon.cli.exits import ERROR, OK, SIGNALLED, prog
from tachyon.cli.histogram import PLAIN, histogram, quantiles
from tachyon.cli.meter import say, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, CHUNK, STREAM_END = 1, 2, 3  # type_ids: the header of a file (its size and name), bytes of it, the end of all
CAPACITY = 4 << 20
CHUNK_SIZE = 256 << 10  # most of these files are smaller than one chunk
ECHO_CAPACITY = 1 << 16
PAYLOAD = 32
WARM_UP = 2_000
ROUND_TRIPS = 200_000
ECHO_SECONDS = 8.0  # fewer round trips on a slow machine
PATIENCE = 30.0  # seconds; a peer that is silent for longer hangs
LARGE = 1 << 20
SPEED_SECONDS = 0.4  # of each figure


def demo() -> int:
    """Run all parts and return the exit code: 0 only if every byte arrived as it was sent."""
    with tempfile.TemporaryDirectory(prefix="tachyon-demo-") as temporary:
        folder = Path(temporary)
        arguments = [sys.executable, "-m", "tachyon.cli.demo", temporary]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=_import_folder()) as second:
            try:
                print(f"two processes: {os.getpid()} sends, {second.pid} receives\n", flush=True)
                same = _stream(folder, second)
                _round_trips(folder, second)
                second.wait(PATIENCE)
                _speeds()
            except BrokenPipeError:  # nobody reads our stdout any more: main() ends without a word
                raise
            except (TachyonError, OSError, ValueError, RuntimeError, subprocess.TimeoutExpired) as error:
                say(f"{prog()} demo: {error}")
                return ERROR
            finally:
                if second.poll() is None:
                    second.kill()
    if second.returncode != 0:
        say(f"{prog()} demo: the second process ended with {second.returncode}")
        return ERROR
    return OK if same else ERROR


def _import_folder() -> str:
    """Where `-m tachyon.cli.demo` finds the same package as we did, whatever the current folder holds."""
    return str(Path(__file__).resolve().parents[2])


def _connect(folder: Path, name: str, second: subprocess.Popen[bytes]) -> Bus:
    """Connect as soon as the second process listens, but do not wait for one that has died."""
    path = folder / name
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return Bus.connect(path, timeout=0.2)
        except TachyonTimeoutError:
            if second.poll() is not None or time.monotonic() > deadline:
                raise


# ---- the stream ------------------------------------------------------------------------------------------------------


def _files() -> Iterator[Path]:
    """Yield this Python's executable and its standard library, without what pip has put there."""
    yield Path(os.path.realpath(sys.executable))
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                yield path


def _stream(folder: Path, second: subprocess.Popen[bytes]) -> bool:
    digest = hashlib.blake2b(digest_size=16)
    files = size = messages = 0
    with _connect(folder, "stream", second) as bus:
        start = time.perf_counter()
        for path in _files():
            try:
                file = path.open("rb", buffering=0)
            except PermissionError:  # some systems keep a few files to themselves
                continue
            with file:
                # A file that changes meanwhile is no matter: its bytes are counted as they are read.
                header = os.fsencode(path)
                digest.update(header)
                bus.send(header, FILE, timeout=PATIENCE)
                files += 1
                messages += 1
                left = os.fstat(file.fileno()).st_size
                while left > 0:
                    with (
                        bus.send_zero_copy(min(left, CHUNK_SIZE), CHUNK, timeout=PATIENCE) as frame,
                        memoryview(frame) as room,
                    ):
                        count = file.readinto(room)
                        frame.actual_size = count
                        digest.update(room[:count])
                    messages += 1
                    size += count
                    left = left - count if count else 0
        bus.send(b"", STREAM_END, timeout=PATIENCE)
        assert second.stdout is not None
        verdict = json.loads(second.stdout.readline() or "{}")
        seconds = time.perf_counter() - start
    sent = {"digest": digest.hexdigest(), "files": files, "bytes": size, "messages": messages}
    rate = size_text(size / seconds)
    print(
        f"this Python's standard library and executable: {files:,} files, {size_text(size)}\n"
        f"  {messages:,} messages in {seconds:.2f} s: {rate}/s, read from files and hashed on both sides\n"
        f"  sent      blake2b {sent['digest']}\n"
        f"  received  blake2b {verdict.get('digest', '(nothing)')}"
    )
    if verdict == sent:
        print("  the same\n", flush=True)
        return True
    print("  NOT THE SAME\n", flush=True)
    say(f"{prog()} demo: sent {sent}, received {verdict}")
    return False


def _receive_stream(folder: Path) -> None:
    digest = hashlib.blake2b(digest_size=16)
    files = size = messages = 0
    with Bus.listen(folder / "stream", CAPACITY, timeout=PATIENCE) as bus:
        ended = False
        while not ended:
            with bus.drain_batch(timeout=PATIENCE) as batch:
                for message in batch:
                    if message.type_id == STREAM_END:
                        ended = True
                        break
                    with memoryview(message) as data:
                        digest.update(data)
                    messages += 1
                    if message.type_id == FILE:
                        files += 1
                    else:
                        size += message.actual_size
        verdict = {"digest": digest.hexdigest(), "files": files, "bytes": size, "messages": messages}
        print(json.dumps(verdict), flush=True)
        with suppress(PeerClosedError):  # our peer goes first: its last send must not find us gone
            bus.recv(timeout=PATIENCE)


# ---- round trips -----------------------------------------------------------------------------------------------------


def _round_trips(folder: Path, second: subprocess.Popen[bytes]) -> None:
    payload = bytes(range(PAYLOAD))
    clock = time.perf_counter_ns
    samples: list[int] = []
    with (
        _connect(folder, "there", second) as there,
        _connect(folder, "back", second) as back,
    ):
        for _ in range(WARM_UP):
            there.send(payload)
            back.recv(timeout=PATIENCE)
        end = clock() + int(ECHO_SECONDS * 1e9)
        after = 0
        while len(samples) < ROUND_TRIPS and after < end:
            before = clock()
            there.send(payload)
            answer = back.recv(timeout=PATIENCE)
            after = clock()
            samples.append(after - before)
            if answer.data != payload:
                raise ValueError(f"round trip {len(samples)} came back as {answer}")
    samples.sort()
    print(f"round trips of {PAYLOAD} bytes, there and back through both Pythons")
    for line in [*histogram(samples), quantiles(samples)]:
        print(f"  {line if _can_print(line) else line.translate(PLAIN)}")
    sys.stdout.flush()


def _speeds() -> None:
    """The bus by itself, one way, with nothing read or hashed; in the same run what one would use without it."""
    cores = machine.choose_cores()
    sizes = f"messages of {PAYLOAD} bytes/s", f"bytes/s in messages of {LARGE >> 20} MiB"
    print(f"\none way, nothing else done: {sizes[0]:>40} {sizes[1]:>32}")
    for title, small, large in (
        ("tachyon", Plain, Into),
        ("a pipe (multiprocessing)", Pipe, Pipe),
        ("a UNIX socket (multiprocessing)", Socket, Socket),
    ):
        messages = pairs.one_way(small, cores, PAYLOAD, 1 << 20, SPEED_SECONDS)
        chunks = pairs.one_way(large, cores, LARGE, 16 * LARGE, SPEED_SECONDS)
        print(f"  {title:<32} {rate(messages):>33} {size_text(chunks * LARGE):>32}", flush=True)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeError:
        return False
    return True


def _echo(folder: Path) -> None:
    with (
        Bus.listen(folder / "there", ECHO_CAPACITY, timeout=PATIENCE) as there,
        Bus.listen(folder / "back", ECHO_CAPACITY, timeout=PATIENCE) as back,
        suppress(PeerClosedError),  # our peer may take its last message and go while we are still sending it
    ):
        for message in there:
            back.send(message.data)


def _second(folder: Path) -> int:
    try:
        _receive_stream(folder)
        _echo(folder)
    except KeyboardInterrupt:  # meant for both of us
        return SIGNALLED + signal.SIGINT
    except TachyonError as error:
        say(f"{prog()} demo, second process: {error}")
        return ERROR
    return OK


if __name__ == "__main__":
    sys.exit(_second(Path(sys.argv[1])))
