"""The one entry: python tests/soak [options]; see --help. Campaigns run in processes of their own, which are watched.

Exit status 0: no promise was broken; 1: one was, and the output says how to repeat it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import FAULTS, HANG, Options, Report, die_with_parent, percentiles

FOLDER = Path(__file__).resolve().parent
VICTIM = FOLDER.parents[1] / "build/release/cxx/tests/soak_victim"
CAMPAIGNS = ["kills", "hostile_peer", "interrupts", "signals", "sleepers"]
STALE = 90.0  # seconds without a new round; every round's own watchdog is shorter
MARGIN = 60.0  # seconds beyond its time before a worker is ended; its own watchdog comes first


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak SOAK_ARGS=...", description=__doc__)
    parser.add_argument("--only", action="append", choices=CAMPAIGNS, help="this campaign; may be given again")
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--hostile-minutes", type=float, default=60)
    parser.add_argument("--interrupts", type=int, default=10_000)
    parser.add_argument("--signal-seconds", type=float, default=60, help="of storm, over all calls")
    parser.add_argument("--sleeps", type=int, default=2_000)
    parser.add_argument("--most-minutes", type=float, default=120, help="for each campaign, done or not")
    parser.add_argument("--seed", type=int, help="default: a random one, which is printed")
    parser.add_argument("--start", type=int, default=0, help="the first round, to repeat one")
    parser.add_argument("--skip", action="append", default=[], metavar="KIND", help="leave out rounds of this kind")
    parser.add_argument("--jobs", type=int, default=2, help="processes of a campaign side by side")
    parser.add_argument("--victim", default=str(VICTIM), help="the C++ victim")
    parser.add_argument("--json", help="write the result to this file too")
    parser.add_argument("--prove", action="store_true", help="break the library in a copy, and see that it is noticed")
    parser.add_argument("--mutant", action="append", default=[], help="with --prove: a part of the name of one")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def amount_of(campaign: str, arguments: argparse.Namespace) -> int:
    amounts = {
        "kills": arguments.kills,
        "hostile_peer": round(arguments.hostile_minutes * 60),
        "interrupts": arguments.interrupts,
        "signals": round(arguments.signal_seconds),
        "sleepers": arguments.sleeps,
    }
    return int(amounts[campaign])


# ---- a worker --------------------------------------------------------------------------------------------------------


def work(words: str) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a script runs this in its background
    task = json.loads(words)
    report = Report(task["campaign"], task["options"]["seed"])
    try:
        importlib.import_module(task["campaign"]).run(Options(**task["options"]), report)
    except Exception as error:
        state = Path(task["options"]["state"])
        report.caught(error, f"in {state.read_text() if state.exists() else 'its beginning'}")
    Path(task["result"]).write_text(json.dumps(dataclasses.asdict(report)))


# ---- the one who watches ---------------------------------------------------------------------------------------------


def run(campaign: str, arguments: argparse.Namespace, folder: str) -> Report:
    jobs = 1 if campaign in ("sleepers", "signals") else arguments.jobs
    amount = amount_of(campaign, arguments)
    by_time = campaign in ("hostile_peer", "signals")
    seconds = amount if by_time else arguments.most_minutes * 60
    victim = arguments.victim if os.access(arguments.victim, os.X_OK) else None
    report = Report(campaign, str(arguments.seed))
    workers = []
    for i in range(jobs):
        state, result = f"{folder}/{campaign}{i}.state", f"{folder}/{campaign}{i}.json"
        share = amount if by_time else (amount + jobs - 1 - i) // jobs
        if share == 0:
            continue
        options = Options(f"{arguments.seed}/{i}", share, seconds, arguments.start, victim, state, arguments.skip)
        task = {"campaign": campaign, "options": dataclasses.asdict(options), "result": result}
        command = [sys.executable, str(FOLDER), "--worker", json.dumps(task)]
        workers.append((i, subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL), state, result))
    end = time.monotonic() + seconds + MARGIN + HANG
    for i, process, state, result in workers:
        code = watch(process, state, end)
        if Path(result).exists():
            report.merge(json.loads(Path(result).read_text()))
        doing = Path(state).read_text() if Path(state).exists() else "its beginning"
        if code is None or code == 1:  # 1 is the watchdog's: every exception is caught
            report.fail("hang", f"worker {i} was not through in time with {doing}")
        elif code != 0:
            report.fail("crash" if code < 0 else "harness", f"worker {i} ended with {code}, in {doing}")
    return report


def watch(process: subprocess.Popen[bytes], state: str, end: float) -> int | None:
    """How it ended. None: it had not begun another round for long, was stopped perhaps, and has been ended."""
    while process.poll() is None:
        begun = os.stat(state).st_mtime if os.path.exists(state) else time.time()
        if time.time() - begun > STALE or time.monotonic() > end:
            process.kill()
            process.wait()
            return None
        time.sleep(0.05)
    return process.returncode


UNITS = {
    "kills": "kills",
    "hostile_peer": "hostile rounds",
    "interrupts": "interrupts",
    "signals": "signals",
    "sleepers": "sleeps",
}


def tell(report: Report) -> str:
    """Prints what a campaign found. Returns its last line."""
    for what, number in sorted(report.counts.items()):
        print(f"  {number:>10,} {what}")
    for what, values in report.latencies.items():
        median, high, most = percentiles(values)
        print(f"  {what}: {median:.2f} ms median, {high:.2f} ms 99th percentile, {most:.2f} ms at most")
    main = UNITS[report.name]
    number = report.counts.get(main, 0)
    print(f"  {number / report.seconds if report.seconds else 0:.1f} {main} per second, {report.seconds:.0f} s")
    for fault, what in report.failures:
        print(f"  FAILED ({fault}): {what}")
    numbers = {fault: sum(each == fault for each, _ in report.failures) for fault in FAULTS}
    found = [f"{count} {fault}" for fault, count in numbers.items() if count]
    return f"soak: {number:,} {main}: {'FAILED: ' + ', '.join(found) if found else 'ok'}"


def main() -> int:
    arguments = parse()
    if arguments.worker:
        work(arguments.worker)
        return 0
    if arguments.prove:
        import prove

        return prove.main(arguments.mutant)
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1 << 32)
    print(f"soak: seed {arguments.seed}", flush=True)
    lines: list[str] = []
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        for campaign in arguments.only or CAMPAIGNS:
            print(f"{campaign}:", flush=True)
            report = run(campaign, arguments, folder)
            if report.counts.get(UNITS[campaign], 0) == 0 and not report.failures:
                report.fail("harness", "it did nothing")
            lines.append(tell(report))
            print(lines[-1], flush=True)
            if report.failures:
                print(f"  again: make soak SOAK_ARGS={shlex.quote(shlex.join(again(campaign, arguments)))}", flush=True)
            summary = dataclasses.asdict(report)
            summary["latencies"] = {key: percentiles(values) for key, values in report.latencies.items()}
            results.append(summary)
    failed = any(result["failures"] for result in results)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"seed": arguments.seed, "campaigns": results}, indent=1))
    print("\n".join(["", *lines]))
    return 1 if failed else 0


def again(campaign: str, arguments: argparse.Namespace) -> list[str]:
    option = {
        "kills": ("--kills", arguments.kills),
        "hostile_peer": ("--hostile-minutes", arguments.hostile_minutes),
        "interrupts": ("--interrupts", arguments.interrupts),
        "signals": ("--signal-seconds", arguments.signal_seconds),
        "sleepers": ("--sleeps", arguments.sleeps),
    }[campaign]
    return ["--only", campaign, "--seed", str(arguments.seed), *map(str, option), "--jobs", str(arguments.jobs)] + [
        word for kind in arguments.skip for word in ("--skip", kind)
    ]


if __name__ == "__main__":
    sys.exit(main())
