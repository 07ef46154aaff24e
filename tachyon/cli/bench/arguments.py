"""The arguments of the command."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count, 1 to 1000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0.001 to 60")
    return seconds


def _cores(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4}),(\d{1,4})", text)
    if match is None or int(match[1]) == int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not two cores, e.g. 0,1")
    return int(match[1]), int(match[2])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the parser of the command."""
    add = parser.add_argument
    add("--only", metavar="NAMES", help="measure only these, separated by commas, e.g. bus,pipe")
    add("--repetitions", metavar="N", type=_count, default=3, help="of each measurement (default: 3)")
    add("--seconds", metavar="S", type=_seconds, default=0.3, help="of each repetition (default: 0.3)")
    add("--cores", metavar="A,B", type=_cores, help="the two cores (default: two that are no siblings)")
    add("--json", metavar="FILE", type=Path, help="also write every sample, and what the machine is")
    add("--plots", metavar="FOLDER", type=Path, help="also draw SVG plots there; needs matplotlib")
    add(
        "--compare",
        metavar=("A", "B"),
        nargs=2,
        type=Path,
        help="measure nothing: set two files of --json side by side",
    )
    add("--anyway", action="store_true", help="measure where ratios mislead: on one core, under load")
