"""Write what a run of `make bench` measured into docs/performance.md, and its plots into docs/plots.

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

from tachyon.cli.bench import plots
from tachyon.cli.bench.results import Results

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- figures: bench/report.py -->", "<!-- end of figures -->"


def figures(results: Results) -> Iterator[str]:
    """Yield the generated part."""
    facts = results.machine
    yield f"{facts['cpu']}, {facts['kernel']}, {facts.get('cxx_compiler')} `{str(facts.get('cxx_flags')).strip()}`,"
    yield f"Python {facts['python']}, commit {facts['commit']}, placement {results.placement()}."
    yield ""
    yield "| row | | ratio | least … greatest | target | |"
    yield "|---|---|---|---|---|---|"
    for row in results.rows:
        if "value" in row:
            span = f"{row['least']:.3g} … {row['greatest']:.3g}"
            yield f"| {row['row']} | {row['text']} | {row['value']:.3g} | {span} | {row['target']} | {row['verdict']} |"
        else:
            yield f"| {row['row']} | {row['text']} | | | | {row['verdict']} |"
    for way in grid.OURS:
        yield ""
        yield from grid.table(results, way)
    yield ""
    yield from growth.table(results)
    for name, why in results.absent.items():
        yield f"\nNot measured: {name}: {why}."


def main() -> int:
    """Put the figures between the marks, draw the plots."""
    results = Results.load(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/bench.json")
    text = PAGE.read_text(encoding="utf-8")
    part = "\n".join([BEGIN, "", *figures(results), "", END])
    new, count = re.subn(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: part, text, flags=re.DOTALL)
    if count != 1:
        print(f"{PAGE}: no place for figures between {BEGIN} and {END}", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    print(f"wrote {PAGE}")
    if not plots.have_matplotlib():
        print(plots.MISSING, file=sys.stderr)
        return 1
    for path in plots.draw(results, ROOT / "docs/plots"):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
