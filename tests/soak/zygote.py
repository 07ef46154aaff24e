"""Makes victims quickly, by fork from a process that has imported everything and opened nothing; and kills them.

One round at a time: a line of JSON in, {"ended": status} out once the victim is dead; {} in, {} out once all is tidy.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from common import FINISHING, HANG, KILLED_AT, PHASE, Finding, Slots, die_with_parent, exit_with

Orders = dict[str, Any]

# ---- in the process that makes victims -------------------------------------------------------------------------------


def half_a_listener(path: str, slots: Slots) -> None:
    """A listener that dies in mid-handshake, while a child that it made holds the accepted socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    client, _ = server.accept()
    if os.fork() == 0:
        server.close()
        slots[PHASE] = 2
        time.sleep(HANG)
        os._exit(0)
    slots.await_value(PHASE, 2)
    os.kill(os.getpid(), signal.SIGKILL)


def start(plan: Orders, slots: Slots, victim: str | None) -> int:
    if plan["cxx"] and victim is not None:
        words = {key: int(value) if isinstance(value, bool) else value for key, value in plan.items()}
        arguments = [f"{key}={value}" for key, value in words.items()]
        return os.posix_spawn(victim, [victim, f"slots={slots.path}", *arguments], os.environ)
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        die_with_parent()
        if plan["role"] == "half a listener":
            half_a_listener(plan["path"], slots)
        import victims

        victims.be(plan, slots)
    except BaseException as error:
        exit_with(error)
    os._exit(0)


def gone(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return status if found else None


def end(pid: int, orders: Orders, slots: Slots) -> int:
    """Waits for the moment, kills, and reaps. Returns how it ended: itself, perhaps, before that."""
    limit = time.monotonic() + HANG
    if orders["when"] == "by itself":
        while (status := gone(pid)) is None:
            if time.monotonic() > limit:
                raise Finding("hang", "the victim did not come to its end")
            time.sleep(0.0002)
        return status
    if orders["when"] != "start":
        while slots[PHASE] != (FINISHING if orders["when"] == "finishing" else 1):
            if (status := gone(pid)) is not None:
                return status
            if time.monotonic() > limit:
                raise Finding("hang", f"the victim never got to be {orders['when']}")
            time.sleep(0.0002)
    time.sleep(orders["delay"])
    if orders["stopped"]:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(orders["stopped"])
        if orders["goes on"]:
            os.kill(pid, signal.SIGCONT)
            time.sleep(orders["goes on"])
    if (status := gone(pid)) is not None:
        return status
    slots[KILLED_AT] = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def reap() -> None:
    with contextlib.suppress(ChildProcessError):  # heirs that have ended
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    die_with_parent()
    ctypes.CDLL(None, use_errno=True).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come here
    import victims  # noqa: F401 - so that every fork has it

    slots = Slots(sys.argv[1])
    victim = sys.argv[2] or None
    survivor = os.getppid()
    gc.freeze()
    second = 0
    for line in sys.stdin:
        orders = json.loads(line)
        if orders:
            pid = start(orders["plan"], slots, victim)
            told: Orders = {}
            try:
                told["ended"] = end(pid, orders, slots)
            except Finding as error:
                told["hang"] = str(error)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            finally:
                if orders["plan"]["blink"]:
                    os.kill(survivor, signal.SIGCONT)
            second = start(orders["second"], slots, victim) if orders["second"] else 0
            print(json.dumps(told), flush=True)
            continue
        if second:
            with contextlib.suppress(ProcessLookupError):
                os.kill(second, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(second, 0)
        second = 0
        reap()
        print("{}", flush=True)


# ---- in the survivor -------------------------------------------------------------------------------------------------


class Zygote:
    def __init__(self, slots: Slots, victim: str | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), slots.path, victim or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _stream(self, stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

    def tell(self, orders: Orders) -> None:
        stdin = self._stream(self.process.stdin)
        stdin.write(json.dumps(orders) + "\n")
        stdin.flush()

    def hear(self) -> dict[str, Any]:
        line = self._stream(self.process.stdout).readline()
        if not line:
            raise RuntimeError("whoever makes the victims is gone; it said above why")
        return dict(json.loads(line))

    def finish(self) -> None:
        self.tell({})
        self.hear()

    def close(self) -> None:
        self._stream(self.process.stdin).close()
        self._stream(self.process.stdout).close()
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    main()
