"""What was measured: samples with their medians, as JSON, and two such files side by side."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tachyon.cli.exits import ERROR, Failure

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
Key = tuple[str, int, int]  # what, size, capacity


@dataclass
class Sample:
    """One repetition of one measurement. `what` begins with py: where both sides are Python."""

    what: str
    size: int
    capacity: int
    value: float
    placement: str
    quantiles: list[list[float]] = field(default_factory=list)
    hdr: str = ""  # HdrHistogram's encoding, if it was there

    @property
    def key(self) -> Key:
        """What has to agree for two samples to be repetitions of the same."""
        return self.what, self.size, self.capacity


@dataclass
class Spread:
    """Median of repetitions, and their least and greatest."""

    median: float
    least: float
    greatest: float
    count: int


class Results:
    """All samples of a run, with what the machine was."""

    def __init__(self, machine: dict[str, Any], samples: list[Sample] | None = None) -> None:
        """Begin with none, or with those of a file."""
        self.machine = machine
        self.samples = samples or []
        self.absent: dict[str, str] = {}  # peers, and why
        self.rows: list[dict[str, Any]] = []  # ratios and their verdicts, of `make bench`

    def add(self, sample: Sample) -> None:
        """Keep one."""
        self.samples.append(sample)

    def placement(self) -> str:
        """Tell which one most repetitions had: only those are compared. Near is preferred where it is half of them."""
        counts = Counter(sample.placement for sample in self.samples if sample.placement != "changed")
        if not counts:
            return "changed"
        return "near" if counts["near"] * 2 >= sum(counts.values()) else counts.most_common(1)[0][0]

    def spread(self, what: str, size: int, capacity: int) -> Spread | None:
        """Median and bounds of the repetitions of the main placement; None where there is none."""
        where = self.placement()
        values = [s.value for s in self.samples if s.key == (what, size, capacity) and s.placement == where]
        return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None

    def measured(self) -> list[Key]:
        """All that was measured, in the order of its first repetition."""
        return list(dict.fromkeys(sample.key for sample in self.samples))

    def quantiles(self, what: str, size: int, capacity: int) -> list[list[float]]:
        """Of the repetition with the median value."""
        where = self.placement()
        found = [s for s in self.samples if s.key == (what, size, capacity) and s.placement == where and s.quantiles]
        return sorted(found, key=lambda each: each.value)[len(found) // 2].quantiles if found else []

    def save(self, path: Path) -> None:
        """Write JSON; docs/performance.md says what is in it."""
        text = {
            "schema": SCHEMA,
            "machine": self.machine,
            "placement": self.placement(),
            "absent": self.absent,
            "rows": self.rows,
            "samples": [asdict(sample) for sample in self.samples],
        }
        path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what save() wrote; Failure where it is something else."""
        try:
            text = json.loads(path.read_text(encoding="utf-8"))
            if text["schema"] != SCHEMA:
                raise Failure(ERROR, f"{path}: schema {text['schema']}; this version reads {SCHEMA}")
            results = cls(text["machine"], [Sample(**sample) for sample in text["samples"]])
            results.absent, results.rows = text["absent"], text["rows"]
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(ERROR, f"{path}: no results of a bench ({type(error).__name__}: {error})") from None
        return results


def better_is_less(what: str) -> bool:
    """Times and shares are better if less, rates if more."""
    return not any(rate in what for rate in ("one_way", "camera", "buses", "loop", "cy:"))


def compare(before: Results, after: Results) -> list[str]:
    """Lines of a table: what both measured, and whether the difference is more than their repetitions differ."""
    lines = []
    for key in ("cpu", "cores", "kernel", "python", "version", "commit", "cxx_compiler", "cxx_flags"):
        old, new = before.machine.get(key), after.machine.get(key)
        if old != new:
            lines.append(f"{key}: {old} → {new}")
    if before.placement() != after.placement():
        lines.append(f"placement: {before.placement()} → {after.placement()}: these are not the same measurement")
    lines.append(f"{'':<34} {'size':>8} {'capacity':>10} {'before':>10} {'after':>10} {'ratio':>6}")
    for what, size, capacity in before.measured():
        old_spread, new_spread = before.spread(what, size, capacity), after.spread(what, size, capacity)
        if old_spread is None or new_spread is None:
            continue
        ratio = new_spread.median / old_spread.median if old_spread.median else float("nan")
        apart = new_spread.least > old_spread.greatest or new_spread.greatest < old_spread.least
        verdict = "" if not apart else "better" if (ratio < 1) == better_is_less(what) else "worse"
        lines.append(
            f"{what:<34} {size:>8} {capacity:>10} {old_spread.median:>10.4g} {new_spread.median:>10.4g} "
            f"{ratio:>6.2f} {verdict}".rstrip()
        )
    judged = {(row["row"], row["text"]): row["verdict"] for row in before.rows}
    for row in after.rows:
        old = judged.get((row["row"], row["text"]), row["verdict"])
        if old != row["verdict"]:
            lines.append(f"row {row['row']}, {row['text'].strip()}: {old} → {row['verdict']}")
    return lines
