"""`bridge`: a gateway as a command: its routes, its status, its signals."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tachyon.cli.exits import ERROR, OK, PEER_GONE, SIGNALLED, TIMED_OUT, USAGE, Failure
from tachyon.cli.meter import is_terminal, say, size_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tachyon.bridge import Gateway, Route

BRIDGE_EXITS = """\
routes, any number of them:
  export PATH NAME       a Bus whose producer is a program here
  import NAME PATH       a Bus whose consumer is a program here
  export-rpc PATH NAME   an RpcServer here, for callers over there
  import-rpc NAME PATH   callers here, of a server over there

exit status:
  0    every Bus went through to its end, and was read to its end
  1    error; one line on stderr says what and where
  2    wrong usage
  3    a program, or the other gateway, died, gave up or was stopped; what had arrived was handed over
  4    not all programs, or not the other side, within --timeout
  130  Ctrl-C (143: SIGTERM, 129: SIGHUP): what the rings held was sent first; a second one ends it at once

Needs pip install 'tachyon-ipc[zenoh]'. See docs/bridge.md.
"""
SHAPES = {"export": "PATH NAME", "import": "NAME PATH", "export-rpc": "PATH NAME", "import-rpc": "NAME PATH"}
LOOK = 0.1  # seconds between two looks at the routes
REPORT = 1.0  # seconds between two reports in JSON


def add_arguments(
    parser: argparse.ArgumentParser, capacity: Callable[[str], int], seconds: Callable[[str], float]
) -> None:
    """Add what the command takes to its parser. The last two: how a ring's size and a time are read."""
    parser.add_argument("routes", metavar="ROUTE", nargs="+", help="export PATH NAME, import NAME PATH, … (see below)")
    for option, text in (
        ("--connect", "connect to this endpoint, e.g. tls/192.0.2.7:7447; may be given again"),
        ("--listen", "listen at this endpoint, e.g. tls/0.0.0.0:7447; may be given again"),
    ):
        parser.add_argument(option, metavar="ENDPOINT", action="append", default=[], help=text)
    parser.add_argument("--ca", metavar="FILE", help="the authority that signed the other side's certificate")
    parser.add_argument("--certificate", metavar="FILE", help="our certificate")
    parser.add_argument("--key", metavar="FILE", help="its key")
    parser.add_argument(
        "--config", metavar="FILE", help="a Zenoh configuration (JSON5); other options come on top of it"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow endpoints without encryption, or that let in anybody, off loopback",
    )
    parser.add_argument(
        "--program",
        choices=("listens", "connects"),
        help="what the programs at the PATHs of Buses do (default: connects for export, listens for import)",
    )
    for option, default, text in (
        ("--capacity", 4 << 20, "bytes of ring of each Bus that a program connects to (default: 4M)"),
        ("--calls", 1 << 20, "bytes of ring for each caller's calls (default: 1M)"),
        ("--replies", 1 << 20, "bytes of ring for each caller's replies (default: 1M)"),
        ("--max-large", 64 << 20, "bytes of the largest message, and of the largest ring (default: 64M)"),
        ("--window", 4 << 20, "bytes under way at most, for each stream: bandwidth x delay (default: 4M)"),
    ):
        parser.add_argument(option, metavar="SIZE", type=capacity, default=default, help=text)
    parser.add_argument(
        "--grace",
        metavar="S",
        type=seconds,
        default=10.0,
        help="seconds that the other gateway may be away before its buses end (default: 10)",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        help="seconds to wait for the programs and the other side (default: for ever)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the state of each route to stdout, a line of JSON a second"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no status; errors are still told")


def routes_of(words: list[str]) -> list[tuple[str, str, str]]:
    """Return (what, first, second) of each route. Failure for what is none."""
    routes = []
    for start in range(0, len(words), 3):
        what, *rest = words[start : start + 3]
        if what not in SHAPES:
            raise Failure(USAGE, f"{what!r} is no route; write one of: {', '.join(SHAPES)}")
        if len(rest) != 2:
            raise Failure(USAGE, f"{what} takes {SHAPES[what]}")
        routes.append((what, rest[0], rest[1]))
    return routes


def run(arguments: argparse.Namespace) -> int:
    """Carry everything until it has ended, or a signal came. Returns the exit code."""
    routes = routes_of(arguments.routes)
    try:
        from tachyon.bridge import Gateway
        from tachyon.bridge._zenoh import log_to_stderr
    except ImportError as error:
        raise Failure(ERROR, str(error)) from None
    if not arguments.quiet:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
        log_to_stderr()
    try:
        gateway = Gateway(
            connect=arguments.connect,
            listen=arguments.listen,
            ca=arguments.ca,
            certificate=arguments.certificate,
            key=arguments.key,
            config=arguments.config,
            insecure=arguments.insecure,
            window=arguments.window,
            grace=arguments.grace,
            max_large=arguments.max_large,
        )
    except ValueError as error:
        raise Failure(USAGE, str(error)) from None
    with gateway:
        for route in routes:
            _begin(gateway, route, arguments)
        return _Running(gateway, arguments).run()


def _begin(gateway: Gateway, route: tuple[str, str, str], arguments: argparse.Namespace) -> None:
    what, first, second = route
    listens = None if arguments.program is None else arguments.program == "connects"
    try:
        if what == "export":
            gateway.export(first, second, capacity=arguments.capacity, listens=listens is not False)
        elif what == "import":
            gateway.import_(first, second, capacity=arguments.capacity, listens=listens is True)
        elif what == "export-rpc":
            gateway.export_rpc(first, second)
        else:
            gateway.import_rpc(first, second, cap_fwd=arguments.calls, cap_rev=arguments.replies)
    except ValueError as error:
        raise Failure(USAGE, str(error)) from None


class _Running:
    """A gateway that runs: its status and its signals."""

    def __init__(self, gateway: Gateway, arguments: argparse.Namespace) -> None:
        self.gateway = gateway
        self.arguments = arguments
        self.signal: int | None = None
        self._again = False
        self._live = not (arguments.quiet or arguments.json) and is_terminal(2)
        self._said: dict[str, str] = {}
        self._reported = 0.0
        self._met: set[str] = set()

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        begin = time.monotonic()
        stopped = False
        while not self.gateway.wait(LOOK) and not self._again:
            if self.signal is not None and not stopped:
                stopped = True
                self.gateway.stop()
            self._show()
            if self.arguments.timeout is not None and time.monotonic() - begin >= self.arguments.timeout:
                self._expect_all()
        self._show(last=True)
        if self.signal is not None:
            return SIGNALLED + self.signal
        return self._verdict()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # No more: what it interrupts may be holding the locks that stop() takes.
        self._again = self.signal is not None
        self.signal = number

    def _expect_all(self) -> None:
        missing = [f"{route.name}: {route.state}" for route in self.gateway.routes if route.name not in self._met]
        missing = [each for each in missing if "waiting for" in each or each.endswith("connecting")]
        if missing:
            raise Failure(TIMED_OUT, f"within {self.arguments.timeout:g} seconds: {'; '.join(missing)}")

    def _verdict(self) -> int:
        from tachyon.bridge import How

        for route in self.gateway.routes:
            if route.error is not None:
                raise route.error
        for route in self.gateway.routes:
            if route.outcome is None or route.outcome.how != How.CLOSED:
                code = ERROR if route.outcome is not None and route.outcome.how == How.REFUSED else PEER_GONE
                raise Failure(code, f"{route.name}: {ending(route)}")
        return OK

    # ---- status ----

    def _show(self, last: bool = False) -> None:
        now = time.monotonic()
        changed = False
        for route in self.gateway.routes:
            state = ending(route) if route.state == "ended" else route.state
            if state == "open":
                self._met.add(route.name)
            if self._said.get(route.name) != state:
                self._said[route.name] = state
                changed = True
                if not (self.arguments.quiet or self.arguments.json):
                    say(("\r\x1b[K" if self._live else "") + f"{route.name}: {state}")
        if self.arguments.json and (changed or last or now - self._reported >= REPORT):
            self._reported = now
            self._report()
        if self._live and not last:
            say("\r" + "  ".join(map(_line, self.gateway.routes))[: _columns() - 1] + "\x1b[K", end="")

    def _report(self) -> None:
        # That nobody reads it, or the disk is full, must not decide what becomes of the data.
        try:
            for route in self.gateway.routes:
                report: dict[str, Any] = {"time": round(time.time(), 3), "name": route.name, "state": route.state}
                if route.state == "ended":
                    report["ending"] = ending(route)
                print(json.dumps(report | route.stats()), flush=True)
        except (OSError, ValueError):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it would be tried again at the end


def ending(route: Route) -> str:
    """Say how a route ended."""
    from tachyon.bridge import How

    if route.error is not None:
        return f"failed: {route.error}"
    outcome = route.outcome
    if outcome is None:
        return "stopped"
    who = "the program over there" if outcome.theirs else "the program here"
    gateway = "the other gateway" if outcome.theirs else "this gateway"
    text = {
        How.CLOSED: "ended: all of it went through",
        How.ABORTED: f"{who} gave up in the middle",
        How.DIED: f"{who} died",
        How.STOPPED: f"{gateway} was stopped",
        How.REFUSED: f"refused by {gateway}",
        How.UNKNOWN: "the other gateway was started anew; what was under way is lost",
        How.LOST: "the other gateway went away, and did not come back in time",
    }[outcome.how]
    return f"{text}: {outcome.text}" if outcome.text else text


def _line(route: Route) -> str:
    stats = route.stats()
    messages = stats.get("sent", 0) + stats.get("received", 0)
    size = stats.get("bytes_sent", 0) + stats.get("bytes_received", 0)
    return f"{route.name}: {route.state}, {messages:,} messages, {size_text(size)}"


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns
    except OSError:
        return 80
