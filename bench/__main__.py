"""`make bench`: every target as a ratio in one run, with its verdict.

    python bench [--only ROWS] [--repetitions N] [--json FILE] [--add] [--anyway]

C++ figures come from build/release/cxx/bench/tachyon_bench, the others from two processes of this interpreter. What
is compared is measured in turns. Each repetition is bracketed by a raw ping-pong that tells where the two cores were
(near: one cache; far: not), and only repetitions of one placement are compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import grid
import growth
from rows import MET, NOT_MEASURED, NOT_MET, ROWS, Row, evaluate
from takers import Cxx, absent, take

from tachyon.cli.bench import machine
from tachyon.cli.bench.results import Key, Results

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "build/release/cxx/bench/tachyon_bench"
GROUPS = ("16", "growth")
ONCE = {"idle", "py:idle", "memory"}  # takes long, or does not vary


class Progress:
    """What is being done, on a terminal; elsewhere a dot now and then would only be in the way."""

    def __init__(self) -> None:
        """Begin now."""
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say it."""
        if sys.stderr.isatty():
            print(f"\r{time.monotonic() - self.start:4.0f} s  {text}\x1b[K", end="", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    names = [*dict.fromkeys(row.number for row in ROWS if row.number), *GROUPS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(names), help=f"rows, separated by commas: {','.join(names)}")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--program", type=Path, default=PROGRAM, help="the C++ program")
    parser.add_argument("--json", type=Path, default=ROOT / "build/bench.json", help="every sample goes there")
    parser.add_argument(
        "--add", action="store_true", help="keep what FILE has of other rows, measured on the same build"
    )
    parser.add_argument("--anyway", action="store_true", help="measure where ratios mislead: under load")
    options = parser.parse_args()
    options.only = options.only.split(",")
    for name in options.only:
        if name not in names:
            parser.error(f"there is no row {name}; there are {', '.join(names)}")
    return options


def wanted(only: list[str]) -> list[Row]:
    """Rows that are asked for, and those told beside them."""
    found, number = [], ""
    for row in ROWS:
        number = row.number or number
        if number in only:
            found.append(row)
    return found


def measure(results: Results, rows: list[Row], cxx: Cxx, cores: tuple[int, int], repetitions: int) -> None:
    """Take all figures of the rows in turns."""
    say = Progress()
    keys: list[Key] = list(dict.fromkeys(key for row in rows for key in row.needs()))
    for key in list(keys):
        say(f"preparing {key[0]}")
        if why := absent(key):
            results.absent[key[0]] = why
            keys.remove(key)
    for turn in range(repetitions):
        taken: set[Key] = set()
        for key in keys:
            if key in taken or key[0] in results.absent or (key[0] in ONCE and turn > 0):
                continue
            say(f"turn {turn + 1} of {repetitions}: {key[0]}")
            try:
                samples = take(key, cxx, cores)
            except (RuntimeError, TimeoutError, OSError) as error:
                results.absent[key[0]] = str(error).strip().splitlines()[-1]
                continue
            if not samples:
                results.absent[key[0]] = "this build of the C++ program does not have it"
            for sample in samples:
                taken.add(sample.key)
                results.add(sample)


def show(results: Results, rows: list[Row]) -> None:
    """Print a line for each row, and keep it with the results."""
    print(f"{'row':<8}{'':<52}{'value':>8}  {'(least … greatest)':<20} {'target':>9}  verdict")
    for row in rows:
        outcome = evaluate(row, results)
        if outcome is None:
            why = [results.absent[key[0]] for key in row.needs() if key[0] in results.absent]
            verdict = NOT_MEASURED + (f": {why[0]}" if why else ": placement changed in each repetition")
            print(f"{row.number:<8}{row.text:<52}{'':>8}  {'':<20} {'':>9}  {verdict}")
            results.rows.append({"row": row.number, "text": row.text, "verdict": verdict})
            continue
        span = f"({outcome.least:.3g} … {outcome.greatest:.3g})"
        target = f"{row.bound} {outcome.target:g}" if row.bound else ""
        print(f"{row.number:<8}{row.text:<52}{outcome.value:>8.3g}  {span:<20} {target:>9}  {outcome.verdict}")
        results.rows.append(
            {"row": row.number, "text": row.text, "value": outcome.value, "least": outcome.least}
            | {"greatest": outcome.greatest, "target": target, "verdict": outcome.verdict, "detail": outcome.detail}
            | {"placement": results.placement()}
        )


def show_grid(results: Results) -> None:
    """Print row 16: both tables, and one verdict for each."""
    print(
        "\n16: one way ÷ the best peer in the same run, and which that was; ** faster by more than repetitions differ"
    )
    for way in grid.OURS:
        print("\n".join(grid.table(results, way)))
        found = list(grid.cells(results, way))
        lost = [value for value in found if not value[2][2]]
        verdict = NOT_MEASURED if not found else MET if not lost else NOT_MET
        text = f"{len(found) - len(lost)} of {len(found)} cells, {way}"
        print(f"16      {text}: {verdict}\n")
        results.rows.append({"row": "16", "text": text, "verdict": verdict})


def differences(before: Results, after: Results) -> str:
    """Tell what keeps the two from being parts of one run."""
    names = ("cpu", "cores", "kernel", "python", "version", "commit", "cxx_compiler", "cxx_flags")
    pairs = ((name, before.machine.get(name), after.machine.get(name)) for name in names)
    return ", ".join(f"{name} {old}, not {new}" for name, old, new in pairs if old != new)


def merge(earlier: Results, now: Results) -> Results:
    """Return both in one: what was measured again, and the rows that were judged again, are those of now."""
    again, judged = set(now.measured()), {(row["row"], row["text"]) for row in now.rows}
    whole = Results(now.machine, [sample for sample in earlier.samples if sample.key not in again] + now.samples)
    whole.absent = earlier.absent | now.absent
    whole.rows = [row for row in earlier.rows if (row["row"], row["text"]) not in judged] + now.rows
    order = [*dict.fromkeys((row.number, row.text) for row in ROWS)]
    whole.rows.sort(key=lambda row: order.index(key) if (key := (row["row"], row["text"])) in order else len(order))
    return whole


def main() -> int:
    """Measure, print, save."""
    options = parse()
    if not options.program.exists():
        print(f"{options.program} is missing; `make bench` builds it", file=sys.stderr)
        return 1
    cores = machine.choose_cores()
    reasons = machine.unfit(cores)
    if cores is None or (reasons and not options.anyway):
        print("this machine is not fit for ratios now: " + "; ".join(reasons), file=sys.stderr)
        print('measure all the same: make bench BENCH_ARGS="--anyway"', file=sys.stderr)
        return 1
    cxx = Cxx(options.program, cores)
    info = cxx.run("info")[0]
    facts = machine.facts(cores)
    facts |= {"cxx_compiler": info["compiler"], "cxx_flags": info["flags"], "peers": info["peers"], "unfit": reasons}
    results, earlier = Results(facts), Results(facts)
    if options.add and options.json.exists():
        earlier = Results.load(options.json)
        if why := differences(earlier, results):
            print(f"{options.json} is of another build or machine: {why}; name another --json", file=sys.stderr)
            return 1
    rows = wanted(options.only)
    measure(results, rows, cxx, cores, options.repetitions)
    few = max(3, options.repetitions // 2 + 1)
    if "16" in options.only:
        grid.take(results, cxx, few, Progress())
    if "growth" in options.only:
        growth.take(results, cxx, few, Progress())
    print(file=sys.stderr)
    print(f"{facts['cpu']}, {facts['kernel']}, Python {facts['python']}, {facts['cxx_compiler']} {facts['cxx_flags']}")
    print(f"commit {facts['commit']}; placement {results.placement()}; load {facts['load']:.2f}")
    for reason in reasons:
        print(f"NOT FIT: {reason}")
    for name, version in info["peers"].items():
        if version == "absent":
            print(f"absent: {name}")
    show(results, rows)
    if "16" in options.only:
        show_grid(results)
    if "growth" in options.only:
        print("\n".join(growth.table(results)))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    merge(earlier, results).save(options.json)
    print(f"every sample: {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
