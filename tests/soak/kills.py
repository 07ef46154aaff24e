"""Kills at random moments. What was committed arrives, the survivor is told, nothing hangs, nothing is left behind.

The survivor is this process, for all rounds; who is killed is made by zygote.py and does what victims.py or
victim.cpp says.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from common import (
    DONE,
    KILLED_AT,
    NOTICE,
    PHASE,
    ROUND,
    WRONG,
    Finding,
    Options,
    Payloads,
    Report,
    Slots,
    Watchdog,
    check,
    fault_of,
    held,
    judge_exit,
    settle,
)
from survivors import ANSWERS, READS, SENDS, answer_all, call_all, read_all, send_all
from zygote import Zygote

import tachyon

KINDS = {"produce": 30, "blink": 20, "consume": 18, "answer": 10, "call": 10, "handshake": 11, "half a listener": 1}
BUS_CAPACITIES = [64, 128, 1024, 1 << 16, 1 << 20]
RPC_CAPACITIES = [128, 1024, 1 << 16]
LEFT = 3  # messages of the one who comes second, after a victim that died in the handshake
LEAK_CHECK = 50  # rounds
REASONS = {"kill": "died", "close": "closed", "abort": "aborted", "raise": "aborted"}


class Campaign:
    def __init__(self, options: Options, report: Report, folder: str) -> None:
        self.options, self.report, self.folder = options, report, folder
        self.slots = Slots(f"{folder}/slots")
        self.zygote = Zygote(self.slots, options.victim)
        self.watchdog = Watchdog(options.state)
        self.listener = tachyon.Listener(f"{folder}/many", 4096)
        self.server = tachyon.RpcServer(f"{folder}/server", tachyon.RpcDispatcher(), 1024, 1024)
        self.ending, self.killed = "kill", True
        self.before = held()

    # ---- one round ----

    def plan(self, n: int) -> tuple[str, random.Random, dict[str, Any], dict[str, Any]]:
        source = random.Random(f"{self.options.seed}/{n}")
        kinds = [kind for kind in KINDS if kind not in self.options.skip]
        kind = source.choices(kinds, [KINDS[kind] for kind in kinds])[0]
        rpc = kind in ("answer", "call")
        capacity = source.choice(RPC_CAPACITIES if rpc else BUS_CAPACITIES)
        if kind == "blink":
            capacity = 1024  # seven messages of a line fit: nobody waits for room while the survivor is stopped
        ending = "kill"
        if kind != "handshake" and source.random() < 0.15:
            ending = source.choice(["close", "abort", "raise"])
        elif kind == "produce" and source.random() < 0.12:
            ending = "finish"
        by_itself = (
            kind == "blink" or ending != "kill" or (kind in ("produce", "call", "answer") and source.random() < 0.2)
        )
        plan = {
            "round": n,
            "role": "produce" if kind in ("blink", "handshake") else kind,
            "rpc": rpc,
            "cxx": kind != "half a listener" and source.random() < 0.5,
            "listens": kind == "answer" if rpc else source.random() < 0.5 or kind == "half a listener",
            "path": f"{self.folder}/bus",
            "capacity": capacity,
            "seed": source.randrange(1 << 32),
            "most": max(12, min(capacity - 16, source.choice([48, 500, 40_000]))),
            "ways": source.choice([["send"], ["zero"], ["try"], ["send", "try", "many", "zero", "abort"]]),
            "rests": 1 if kind == "blink" else source.choice([0, 0.02, 0.3]),
            "heir": source.choice(["none", "none", "none", "fork", "multiprocessing"]),
            "last": source.choice([1, 2, 5, 20, 200]) if by_itself else 0,
            "blink": os.getpid() if kind == "blink" else 0,
            "ending": ending,
            "holds": kind == "consume" and source.random() < 0.5,
        }
        if kind == "blink":
            plan |= {"last": source.randrange(1, 8), "heir": "none", "most": 48}
            plan["ways"] = source.choice([["send"], ["try"], ["many"]])
        stopped = source.choice([0.002, 0.07, 0.12]) if source.random() < 0.08 else 0
        orders = {
            "plan": plan,
            "when": "finishing"
            if ending == "finish"
            else "by itself"
            if by_itself or kind == "half a listener"
            else "ready",
            "delay": source.choice([0, source.random() * 0.005, source.random() * 0.03]),
            "stopped": stopped,
            "goes on": stopped and source.choice([0, 0.003]),
            "second": None,
        }
        if kind in ("handshake", "half a listener"):
            plan |= {"capacity": 1024, "most": 48}
            orders |= {
                "delay": source.random() * 0.006,
                "second": plan | {"last": LEFT, "ending": "close", "role": "produce"},
            }
            if kind == "handshake":
                orders["when"] = "start"
        return kind, source, plan, orders

    def round(self, n: int) -> None:
        kind, source, plan, orders = self.plan(n)
        self.watchdog.round(f"round {n}: {kind} {orders}")
        self.ending = plan["ending"]
        slots = self.slots
        slots[ROUND] = n
        for slot in (PHASE, DONE, KILLED_AT, WRONG):
            slots[slot] = 0
        while (stray := self.listener.try_accept()) is not None:  # of a round that went another way
            stray.close()
        through_server = kind == "call" and source.random() < 0.4
        if through_server:
            plan |= {"path": f"{self.folder}/server", "most": min(plan["most"], 1008)}
        self.zygote.tell(orders)
        heard = False
        try:
            if kind in ("handshake", "half a listener"):
                self.handshake(kind, source, plan)
            elif through_server:
                heard = True
                self.serve_many(source)
            else:
                self.converse(kind, source, plan)
        finally:
            if not heard:
                self.hear()
            with contextlib.suppress(FileNotFoundError):  # a listener that was killed left it
                os.unlink(f"{self.folder}/bus")
            self.zygote.finish()
        self.report.count("kills" if self.killed else f"endings by {plan['ending']}")
        if plan["holds"]:
            self.report.count("victims that held several messages")
        self.report.count(f"{kind}, {'C++' if plan['cxx'] else 'Python'}")
        if orders["stopped"]:
            self.report.count("stopped peers")
        if plan["heir"] != "none":
            self.report.count("with a forked child")
        if slots[WRONG]:
            judge_exit(slots[WRONG] << 8, "the victim")

    def hear(self) -> None:
        told = self.zygote.hear()
        if "hang" in told:
            raise Finding("hang", told["hang"])
        status = int(told["ended"])
        self.killed = status == signal.SIGKILL
        if not self.killed:
            judge_exit(status, "the victim")
            if self.ending == "kill":
                raise Finding("harness", "the victim ended by itself")

    # ---- peers that got through the handshake ----

    def open(self, source: random.Random, plan: dict[str, Any]) -> Any:
        kind = tachyon.RpcBus if plan["rpc"] else tachyon.Bus
        if plan["listens"]:
            return kind.connect(plan["path"], timeout=NOTICE)
        bus = kind.listen(plan["path"], *[plan["capacity"]] * (2 if plan["rpc"] else 1), timeout=NOTICE)
        if os.path.exists(plan["path"]):
            raise Finding("leak", f"{plan['path']} is still there after the handshake")
        return bus

    @contextlib.contextmanager
    def few_descriptors(self, few: bool, source: random.Random) -> Iterator[None]:
        """As a process that gives up its rights does: no number beyond 0, or none at all, may be opened any more."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if few:
            resource.setrlimit(resource.RLIMIT_NOFILE, (source.randrange(2), hard))
            self.report.count("without descriptors")
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def converse(self, kind: str, source: random.Random, plan: dict[str, Any]) -> None:
        few = source.random() < 0.04 and "without descriptors" not in self.options.skip
        timeout = NOTICE if few else source.choice([NOTICE, None])
        with self.open(source, plan) as bus, self.few_descriptors(few, source):
            done, unheard = 0, 0
            if kind in ("produce", "blink"):
                way = "poll" if kind == "blink" else source.choice(READS)
                if plan["ending"] == "finish":  # let it get there, and wait
                    settle(lambda: self.slots[KILLED_AT] != 0, source.random() * 0.06)
                done, error = read_all(bus, way, source, timeout)
            elif kind == "consume":
                done, error = send_all(bus, source.choice(SENDS), Payloads(source, plan["most"]), source, timeout)
            elif kind == "answer":
                done, error, unheard = call_all(bus, Payloads(source, plan["most"]), source, timeout)
            else:
                way = source.choice(ANSWERS)
                done, error = answer_all(bus, way, source, timeout)
            noticed = time.monotonic_ns()
            self.judge(kind, plan, error, noticed)
            counted = self.slots[DONE]
            if plan["ending"] == "finish":  # it may have been killed before it said so: then that is a death
                closed = type(error) is tachyon.PeerClosedError
                exact = done == counted == plan["last"] if closed else done == plan["last"]
                self.report.count("killed in finish(), after it was told" if closed else "killed in finish(), before")
            elif kind == "consume":
                exact = counted <= done + 1
            elif kind == "call" and error is None:  # the dispatcher may find out by an answer, and then reads no more
                exact = done <= counted + 1
            else:
                # It may have been killed between a commit and the count of it.
                exact = counted - unheard <= done <= counted + (0 if plan["last"] else 1)
            if not exact:
                raise Finding("lost", f"the victim counted {counted}, the survivor {done}")
            self.report.count("messages", done)

    def judge(self, kind: str, plan: dict[str, Any], error: Exception | None, noticed: int) -> None:
        """Was that the right thing to say, and not before it was true?"""
        killed = self.slots[KILLED_AT]
        if isinstance(error, tachyon.PeerDeadError) and error.reason == "corrupt":
            raise Finding("torn", f"{error!r}")
        if plan["ending"] == "finish" and isinstance(error, tachyon.PeerClosedError):
            return
        if killed == 0:
            raise Finding("wrong", f"declared dead while it lived: {error!r}")
        reason = REASONS.get(plan["ending"], "died")
        if error is not None:
            expected = tachyon.PeerClosedError if reason == "closed" else tachyon.PeerDeadError
            if type(error) is not expected or getattr(error, "reason", "") != reason:
                raise Finding("wrong", f"{error!r} is not {expected.__name__} with the reason {reason!r}")
        if kind != "blink":
            what = {"died": "a death", "closed": "a close", "aborted": "an abort"}[reason]
            self.report.latency(f"notice of {what}", (noticed - killed) / 1e9)

    def serve_many(self, source: random.Random) -> None:
        """The victim is one caller of a server, which goes on."""
        wrong: list[Exception] = []
        expected = iter(range(1 << 62))

        def echo(payload: memoryview) -> bytes:
            try:
                check(payload, next(expected))
            except Finding as error:
                wrong.append(error)
            return payload.tobytes()

        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(echo))
        self.server.dispatcher = dispatcher

        def end() -> None:
            try:
                self.hear()
                if not settle(lambda: self.server.stats()["callers"] == 0, NOTICE):
                    wrong.append(Finding("hang", "the server was never told of the death"))
                self.report.latency("notice by a server", (time.monotonic_ns() - self.slots[KILLED_AT]) / 1e9)
            except Exception as error:
                wrong.append(error)
            finally:
                self.server.stop()

        ender = threading.Thread(target=end)
        ender.start()
        self.server.serve_forever()
        ender.join()
        if wrong:
            raise wrong[0]

    # ---- peers that die on the way ----

    def handshake(self, kind: str, source: random.Random, plan: dict[str, Any]) -> None:
        bus: Any
        once = source.random() < 0.2
        if kind == "half a listener":
            bus = tachyon.Bus.connect(plan["path"], timeout=NOTICE)  # the next one, however long the first is held
        elif plan["listens"] and once:
            settle(lambda: os.path.exists(plan["path"]), NOTICE)
            try:
                bus = tachyon.Bus.connect(plan["path"])
            except tachyon.HandshakeError:
                self.report.count("handshakes that failed, as they may")
                return
        elif plan["listens"]:
            bus = tachyon.Bus.connect(plan["path"], timeout=NOTICE)
        elif once:
            bus = tachyon.Bus.listen(plan["path"], 1024, timeout=NOTICE)
        else:
            os.symlink(f"{self.folder}/many", plan["path"])
            bus = self.listener.accept(timeout=NOTICE)
        with bus:
            done, error = read_all(bus, source.choice(READS), source, NOTICE)
        self.report.count("messages", done)
        if type(error) is tachyon.PeerClosedError and done != LEFT:
            raise Finding("lost", f"{done} messages of {LEFT}, then {error!r}")
        if type(error) is tachyon.PeerDeadError and error.reason != "died":
            raise Finding(fault_of(error), repr(error))
        if type(error) is tachyon.PeerDeadError and self.slots[KILLED_AT] == 0:
            raise Finding("wrong", f"declared dead while it lived: {error!r}")
        self.report.count(
            "handshakes that ended with the second" if done == LEFT else "handshakes that the first ended"
        )

    # ---- all of them ----

    def look_for_leaks(self) -> None:
        self.watchdog.round("looking for leaks", 60)
        self.server.stop()
        self.server.serve_forever()

        def as_before() -> bool:
            while (stray := self.listener.try_accept()) is not None:
                stray.close()
            return all(now <= then for now, then in zip(held(), self.before, strict=True))

        if not settle(as_before):
            names = []
            for number in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    names.append(os.readlink(f"/proc/self/fd/{number}"))
            self.report.fail("leak", f"(descriptors, mappings) were {self.before}, are {held()}: {sorted(names)}")
            self.before = held()
        self.report.count("looks for leaks")

    def close(self) -> None:
        self.watchdog.round("closing")
        self.slots[ROUND] += 1  # the last heirs
        self.zygote.close()
        self.listener.close()
        self.server.close()
        self.watchdog.over()
        left = set(os.listdir(self.folder)) - {"slots"}
        if left:
            self.report.fail("leak", f"{sorted(left)} left in the folder")


def run(options: Options, report: Report) -> None:
    logging.getLogger("tachyon").addHandler(logging.NullHandler())
    logging.getLogger("tachyon").propagate = False
    folder = tempfile.mkdtemp(prefix="soak-")
    begin = time.monotonic()
    try:
        campaign = Campaign(options, report, folder)
        for n in range(options.start, options.start + options.amount):
            if report.hopeless or time.monotonic() - begin > options.seconds:
                break
            try:
                campaign.round(n)
            except (Finding, tachyon.TachyonError) as error:
                report.caught(error, f"in {n}: {campaign.plan(n)[3]}")
            if (n + 1) % LEAK_CHECK == 0:
                campaign.look_for_leaks()
        campaign.look_for_leaks()
        campaign.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        report.seconds = time.monotonic() - begin
