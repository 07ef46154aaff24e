"""Write what a run of `make bench` measured into docs/performance.md and README.md, and its plots into docs/plots.

python bench/report.py [build/bench.json]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import grid
import growth
import overview

from tachyon.cli.bench import plots
from tachyon.cli.bench.results import Results

ROOT = Path(__file__).parent.parent
PLOTS = ROOT / "docs/plots"
RATIOS = "2,5,7,camera"  # of the README


def facts_of(results: Results) -> Iterator[str]:
    """Yield what the figures are of."""
    facts = results.machine
    kernel = ".".join(str(facts["kernel"]).split(".")[:2])
    yield f"{facts['cpu']}, {kernel}, {facts.get('cxx_compiler')} `{str(facts.get('cxx_flags')).strip()}`,"
    yield f"Python {facts['python']}, commit {facts['commit']}, placement {results.placement()}."


def figures(results: Results) -> Iterator[str]:
    """Yield the generated part of docs/performance.md."""
    yield from facts_of(results)
    yield ""
    yield "| row | | ratio | least … greatest | target | |"
    yield "|---|---|---|---|---|---|"
    for row in results.rows:
        verdict = row["verdict"]
        if row.get("placement", results.placement()) != results.placement():
            verdict += f" ({row['placement']})"
        if "value" in row:
            span = f"{row['least']:.3g} … {row['greatest']:.3g}"
            yield f"| {row['row']} | {row['text']} | {row['value']:.3g} | {span} | {row['target']} | {verdict} |"
        else:
            yield f"| {row['row']} | {row['text']} | | | | {verdict} |"
    for way in grid.OURS:
        yield ""
        yield from grid.table(results, way)
    yield ""
    yield from growth.table(results)
    for name, why in results.absent.items():
        yield f"\nNot measured: {name}: {why}."


def ratios(results: Results) -> Iterator[str]:
    """Yield the generated part of README.md."""
    yield "![One way and there and back, beside what else there is](docs/plots/overview.svg)"
    yield ""
    yield "| in one run | ratio | least … greatest |"
    yield "|---|---|---|"
    for row in results.rows:
        if row["row"] in RATIOS.split(",") and "value" in row:
            yield f"| {row['text']} | {row['value']:.3g} | {row['least']:.3g} … {row['greatest']:.3g} |"
    yield ""
    yield from facts_of(results)
    yield f'`make bench BENCH_ARGS="--only {RATIOS}"` prints them for yours.'
    yield from lost(results)


def lost(results: Results) -> Iterator[str]:
    """Yield the cells of row 16 in which a peer is faster, and by how much."""
    found = {
        (size, capacity, way): "–" if good else f"{1 / ratio:.2g} {name}"
        for way in grid.OURS
        for size, capacity, (ratio, name, good) in grid.cells(results, way)
    }
    beaten = {key: text for key, text in found.items() if text != "–"}
    if not found:
        return
    yield f"Of {len(found)} cells of size, capacity and way of waiting a peer is faster in {len(beaten)}:"
    yield "how many times, and which, spinning / blocking."
    yield ""
    capacities = sorted({capacity for _, capacity, _ in beaten})
    yield f"| message ÷ ring | {' | '.join(f'{grid.short(each)}B' for each in capacities)} |"
    yield "|---|" + "---|" * len(capacities)
    for size in sorted({size for size, _, _ in beaten}):
        texts = (" / ".join(found.get((size, each, way), "–") for way in grid.OURS) for each in capacities)
        yield f"| {grid.short(size)}{'' if size >> 10 else ' '}B | {' | '.join(texts)} |"


def put(page: Path, name: str, lines: Iterator[str]) -> bool:
    """Put lines between the marks of a page."""
    begin, end = f"<!-- {name}: bench/report.py -->", f"<!-- end of {name} -->"
    text = page.read_text(encoding="utf-8")
    part = "\n".join([begin, "", *lines, "", end])
    new, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: part, text, flags=re.DOTALL)
    if count != 1:
        print(f"{page}: no place between {begin} and {end}", file=sys.stderr)
        return False
    page.write_text(new, encoding="utf-8")
    print(f"wrote {page}")
    return True


def main() -> int:
    """Put the figures between the marks, draw the plots."""
    results = Results.load(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/bench.json")
    done = put(ROOT / "docs/performance.md", "figures", figures(results))
    done = put(ROOT / "README.md", "ratios", ratios(results)) and done
    if not plots.have_matplotlib():
        print(plots.MISSING, file=sys.stderr)
        return 1
    for path in [*plots.draw(results, PLOTS), overview.draw(results, PLOTS / "overview.svg")]:
        print(f"wrote {path} ({path.stat().st_size >> 10} KiB)")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
