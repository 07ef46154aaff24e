"""`make bench`: a run in parts, and what of it gets into the pages. Only in the source tree."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tachyon.cli.bench.results import Results, Sample, compare

BENCH = Path(__file__).parent.parent / "bench"
if not BENCH.is_dir():
    pytest.skip("only in the source tree", allow_module_level=True)

MI = 1 << 20


@pytest.fixture
def bench(monkeypatch):
    """bench(name) → that module of the folder `bench`."""
    monkeypatch.syspath_prepend(str(BENCH))
    names = ("grid", "growth", "rows", "takers", "overview", "report", "cython_loops")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda name: importlib.import_module(name)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def program(bench):
    """bench/__main__.py"""
    spec = importlib.util.spec_from_file_location("make_bench", BENCH / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(values, row=None, **facts):
    made = Results({"cpu": "a processor", "kernel": "Linux", "python": "3", "commit": "abc"} | facts)
    for what, value in values.items():
        made.add(Sample(what, 32, MI, value, "far"))
    if row:
        made.rows.append({"row": row[0], "text": row[1], "verdict": row[2]})
    return made


def test_parts_of_a_run_are_one_and_what_was_measured_again_replaces_what_was(program):
    rows = [(row.number, row.text) for row in program.ROWS if row.number in ("1", "5")]
    first = results({"round_trip:ring": 1.0, "round_trip:lines": 2.0}, (*rows[1], "met"))
    first.absent["nng"] = "absent"
    second = results({"round_trip:lines": 3.0}, (*rows[0], "NOT MET"))
    whole = program.merge(first, second)
    assert [(sample.what, sample.value) for sample in whole.samples] == [
        ("round_trip:ring", 1),
        ("round_trip:lines", 3),
    ]
    assert [(row["row"], row["verdict"]) for row in whole.rows] == [("1", "NOT MET"), ("5", "met")]
    assert whole.absent == {"nng": "absent"}
    again = program.merge(whole, results({}, (*rows[1], "NOT MET")))
    assert [(row["row"], row["verdict"]) for row in again.rows] == [("1", "NOT MET"), ("5", "NOT MET")]


def test_parts_of_two_builds_are_not_put_together(program):
    assert program.differences(results({}), results({})) == ""
    assert program.differences(results({}), results({}, commit="def")) == "commit abc, not def"


def test_a_verdict_that_changed_is_told_by_the_comparison():
    before, after = (results({}, ("5", "parked", verdict)) for verdict in ("met", "NOT MET"))
    assert compare(before, after)[-1] == "row 5, parked: met → NOT MET"
    assert "row 5" not in "\n".join(compare(before, before))


def test_every_target_has_a_row(bench):
    found = {row.number for row in bench("rows").ROWS}
    assert {str(number) for number in range(1, 20)} - {"16"} <= found


def measured():
    made = results({})
    for size in (8, 32, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20):
        for name, value in (("bus", 2e6), ("bus-blocking", 2e6), ("index", 1e6), ("boost", 4e6 if size == 8 else 1e6)):
            for nudge in (0.99, 1.0, 1.01):
                made.add(Sample(f"one_way:{name}", size, 8 * MI, value * nudge, "far"))
    for name in ("bus", "unix"):
        made.add(Sample(f"round_trip:{name}", 32, MI, 300.0, "far", [[0.5, 300.0], [1.0, 900.0]]))
    made.rows.append({"row": "5", "text": "parked ÷ socket", "value": 0.7, "least": 0.6, "greatest": 0.8})
    made.rows[-1] |= {"target": "<= 0.75", "verdict": "met", "detail": "", "placement": "near"}
    return made


def test_no_two_rows_are_taken_for_one_another(program):
    names = [(row.number, row.text) for row in program.ROWS]
    assert len(set(names)) == len(names)


def test_the_pages_get_rows_verdicts_and_the_cells_where_a_peer_is_faster(bench):
    report, made = bench("report"), measured()
    page = "\n".join(report.figures(made))
    assert "| 5 | parked ÷ socket | 0.7 | 0.6 … 0.8 | <= 0.75 | met (near) |" in page
    readme = "\n".join(report.ratios(made))
    assert "| parked ÷ socket | 0.7 | 0.6 … 0.8 |" in readme
    assert "| 8 B | 2 boost / 2 boost |" in readme
    assert "32B in" not in readme


def test_what_stands_around_the_figures_stays(bench, tmp_path):
    report, page = bench("report"), tmp_path / "page.md"
    page.write_text("before\n<!-- figures: bench/report.py -->\nold\n<!-- end of figures -->\nafter\n")
    assert report.put(page, "figures", iter(["new"]))
    assert page.read_text() == ("before\n<!-- figures: bench/report.py -->\n\nnew\n\n<!-- end of figures -->\nafter\n")
    assert not report.put(page, "ratios", iter(["new"]))


@pytest.mark.skipif(not find_spec("matplotlib"), reason="no matplotlib")
def test_the_plot_of_the_readme_is_small(bench, tmp_path):
    path = bench("overview").draw(measured(), tmp_path / "overview.svg")
    assert "tachyon" in path.read_text()
    assert path.stat().st_size < 100_000
