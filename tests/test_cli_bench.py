"""`python -m tachyon bench`: its arguments, what it writes, what it refuses, and two of its files side by side."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tachyon.cli.bench import command, machine, native, pairs, percentiles, plots, report
from tachyon.cli.bench.ours import OURS
from tachyon.cli.bench.peers import PEERS
from tachyon.cli.bench.results import Results, Sample, compare
from tachyon.cli.exits import Failure

BUS = ("py:one_way:bus", 32, 1 << 20)
QUICK = ("--only", "bus,pipe", "--repetitions", "1", "--seconds", "0.01", "--anyway")


def bench(*words, cwd, code=0, env=None):
    done = subprocess.run(
        [sys.executable, "-m", "tachyon", "bench", *map(str, words)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def results(*values, placement="near", what=BUS[0]):
    made = Results({"cpu": "a processor", "commit": "abc"})
    for value in values:
        made.add(Sample(what, 32, 1 << 20, value, placement))
    return made


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_prints_ratios_and_writes_every_sample_with_what_the_machine_is(tmp_path):
    out, _ = bench(*QUICK, "--json", "run.json", cwd=tmp_path)
    assert "ratios in this run" in out
    assert "bus ÷ multiprocessing.Pipe" in out
    assert "p99.99" in out
    text = json.loads((tmp_path / "run.json").read_text())
    assert text["schema"] == 1
    assert set(text) == {"schema", "machine", "placement", "absent", "rows", "samples"}
    expected = {"cpu", "cores", "kernel", "python", "python_compiler", "build", "commit", "version", "load", "date"}
    assert expected <= set(text["machine"])
    for sample in text["samples"]:
        assert set(sample) == {"what", "size", "capacity", "value", "placement", "quantiles", "hdr"}
        assert sample["value"] > 0
    trips = [sample for sample in text["samples"] if sample["what"] == "py:round_trip:bus"]
    shares = [share for share, _ in trips[0]["quantiles"]]
    assert shares == sorted(shares)
    assert {0.5, 0.99, 0.9999, 1.0} <= set(shares)


@pytest.mark.parametrize(
    "words",
    [
        ("--repetitions", "0"),
        ("--repetitions", "many"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--cores", "1"),
        ("--cores", "1,1"),
        ("--compare", "one.json"),
    ],
)
def test_wrong_arguments_are_told_by_name(words, tmp_path):
    _, said = bench(*words, cwd=tmp_path, code=2)
    assert words[0] in said


def test_a_channel_that_there_is_not_is_told_with_those_that_there_are(tmp_path):
    _, said = bench("--only", "bus,pigeon", cwd=tmp_path, code=1)
    assert "'pigeon'" in said
    for name in (*(kind.name for kind in (*OURS, *PEERS)), "c++"):
        assert name in said


@pytest.mark.parametrize("peer", [kind for kind in PEERS[:4] if not kind.absent()], ids=lambda kind: kind.name)
def test_every_peer_that_is_installed_streams_and_answers(peer, tmp_path):
    assert pairs.one_way(peer, None, 32, 1 << 20, 0.01) > 0
    mean, samples = pairs.round_trip(peer, None, 32, 1 << 20, 0.01)
    assert mean > 0
    assert samples


@pytest.mark.parametrize("kind", [kind for kind in OURS if not kind.absent()], ids=lambda kind: kind.name)
def test_everything_of_ours_streams(kind, tmp_path):
    assert pairs.one_way(kind, None, 1024, 1 << 20, 0.01) > 0


def test_a_second_process_that_fails_is_told_and_ends_nothing_else(monkeypatch):
    class Failing(PEERS[0]):
        def receive_all(self):
            raise ValueError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        pairs.one_way(Failing, None, 32, 1 << 20, 0.001)
    made = Results({})
    command.measure_all(made, [Failing], None, 1, 0.001)
    assert any("no more" in why for why in made.absent.values())


class Hanging(PEERS[0]):
    """No signal gets it out of there, as if it were in C."""

    name = "hanging"

    def open_sender(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(1000)


def test_a_peer_that_hangs_is_given_up_and_named_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr(pairs, "WATCHDOG", 1.0)
    made = Results({})
    command.measure_all(made, [Hanging, PEERS[0]], None, 2, 0.001)
    assert set(made.absent) == {"hanging"}  # once: it is not tried again
    assert made.absent["hanging"].startswith("32 B: given up after 1")
    assert {key[0] for key in made.measured()} == {"py:one_way:pipe", "py:round_trip:pipe"}


def test_nothing_is_left_of_a_measurement_that_hung(monkeypatch, tmp_path):
    monkeypatch.setattr(pairs, "WATCHDOG", 1.0)

    def hang():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        (tmp_path / str(os.getpid())).touch()
        time.sleep(1000)

    with pytest.raises(TimeoutError, match="given up after 1"):
        pairs.bounded(lambda: pairs.both(None, hang, hang), 0)
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 2
    for name in names:
        state = Path("/proc", name, "stat")
        deadline = time.monotonic() + 20  # of a process that has been killed its new parent has yet to take leave
        while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not state.exists() or state.read_text().split()[2] == "Z"


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(PEERS[3], "absent", staticmethod(lambda: "not installed: pip install pyzmq"))
    made = Results(
        {"cpu": "", "kernel": "", "python": "", "version": "", "commit": "", "cores": [], "shared_cache": ""}
    )
    command.measure_all(made, [PEERS[3]], None, 1, 0.001)
    assert made.absent == {"pyzmq": "not installed: pip install pyzmq"}
    assert "not measured: pyzmq: not installed: pip install pyzmq" in list(report.lines(made))


# ---- is the machine fit? ---------------------------------------------------------------------------------------------


def options(**more):
    from argparse import ArgumentParser

    from tachyon.cli.bench.arguments import add_arguments

    parser = ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([*QUICK[:-1], *(f"--{name}" for name in more)])


def test_one_core_is_refused_with_the_reason():
    assert "one core" in machine.unfit(None)[0]


def test_a_core_that_others_use_is_refused_with_the_share_they_take(monkeypatch):
    looks = iter([{0: (0, 0, 0), 1: (0, 0, 0)}, {0: (50, 0, 100), 1: (0, 40, 100)}])
    monkeypatch.setattr(machine, "_ticks", lambda cores: next(looks))
    monkeypatch.setattr(machine, "LOOK", 0)
    first, second = machine.unfit((0, 1))
    assert "50%" in first
    assert "core 0" in first
    assert "host takes 40% of core 1" in second


def test_an_idle_machine_is_not_refused(monkeypatch):
    looks = iter([{0: (0, 0, 0), 1: (0, 0, 0)}, {0: (1, 0, 100), 1: (2, 0, 100)}])
    monkeypatch.setattr(machine, "_ticks", lambda cores: next(looks))
    monkeypatch.setattr(machine, "LOOK", 0)
    assert machine.unfit((0, 1)) == []


def test_no_ratio_is_printed_where_the_machine_is_not_fit_unless_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(machine, "unfit", lambda cores: ["other processes take 90% of core 0"])
    with pytest.raises(Failure, match="90% of core 0.*--anyway"):
        command.run(options())
    assert capsys.readouterr().out == ""
    assert command.run(options(anyway=True)) == 0
    assert "NOT FIT: other processes take 90% of core 0" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
def test_a_process_that_may_use_one_core_is_refused(tmp_path):
    core = min(os.sched_getaffinity(0))
    program = f"import os, runpy, sys; os.sched_setaffinity(0, {{{core}}}); sys.argv = ['tachyon', 'bench']"
    program += "; runpy.run_module('tachyon', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "one core" in done.stderr


def test_siblings_of_one_core_are_not_chosen_where_there_are_others(monkeypatch):
    monkeypatch.setattr(machine, "allowed", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "_siblings", lambda core: {core // 2 * 2, core // 2 * 2 + 1})
    assert machine.choose_cores() == (0, 2)


# ---- results ---------------------------------------------------------------------------------------------------------


def test_only_repetitions_of_one_placement_are_put_together():
    made = results(10.0, 20.0, 30.0)
    made.add(Sample(*BUS, 1.0, "far"))
    made.add(Sample(*BUS, 2.0, "changed"))
    spread = made.spread(*BUS)
    assert (spread.median, spread.least, spread.greatest, spread.count) == (20, 10, 30, 3)
    assert made.spread("py:one_way:other", 32, 1 << 20) is None


def test_what_was_saved_is_loaded_again(tmp_path):
    made = results(1.0, 2.0)
    made.absent["nng"] = "not installed"
    made.samples[0].quantiles = [[0.5, 100.0]]
    made.save(tmp_path / "a.json")
    again = Results.load(tmp_path / "a.json")
    assert again.samples == made.samples
    assert again.machine == made.machine
    assert again.absent == made.absent


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 999}', '{"schema": 1, "machine": {}, "samples": [{}]}'])
def test_a_file_of_something_else_is_refused_by_name(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    _, said = bench("--compare", "a.json", "a.json", cwd=tmp_path, code=1)
    assert "a.json" in said


def test_two_files_are_set_side_by_side(tmp_path):
    results(100.0, 101.0, 102.0).save(tmp_path / "a.json")
    results(200.0, 201.0, 202.0).save(tmp_path / "b.json")
    out, _ = bench("--compare", "a.json", "b.json", cwd=tmp_path)
    line = next(line for line in out.splitlines() if line.startswith(BUS[0]))
    assert line.split()[-2:] == ["1.99", "better"]


@pytest.mark.parametrize(
    ("what", "before", "after", "verdict"),
    [
        ("py:one_way:bus", (100, 110), (50, 60), "worse"),
        ("py:one_way:bus", (100, 110), (105, 115), ""),
        ("round_trip:bus", (100, 110), (50, 60), "better"),
        ("round_trip:bus", (50, 60), (100, 110), "worse"),
    ],
)
def test_a_difference_is_judged_only_where_repetitions_do_not_overlap(what, before, after, verdict):
    lines = compare(results(*before, what=what), results(*after, what=what))
    line = next(line for line in lines if line.startswith(what))
    assert [*line.split(), ""][6 if verdict else -1] == verdict


def test_files_of_two_machines_or_placements_are_told_apart():
    other = results(1.0, placement="far")
    other.machine = {"cpu": "another", "commit": "abc"}
    lines = compare(results(1.0), other)
    assert "cpu: a processor → another" in lines
    assert any("near → far" in line for line in lines)


# ---- percentiles and plots -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hdr", [False, True])
def test_percentiles_are_those_of_the_samples(hdr, monkeypatch):
    if hdr and not percentiles.have_hdr():
        pytest.skip("no hdrhistogram")
    monkeypatch.setattr(percentiles, "have_hdr", lambda: hdr)
    points, encoded = percentiles.summarize(range(1, 100_001))
    assert bool(encoded) == hdr
    for share, expected in ((0.0, 1), (0.5, 50_000), (0.99, 99_000), (0.9999, 99_990), (1.0, 100_000)):
        assert percentiles.at(points, share) == pytest.approx(expected, rel=0.002, abs=1)


def test_plots_without_matplotlib_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(plots, "have_matplotlib", lambda: False)
    monkeypatch.setattr(machine, "unfit", lambda cores: [])
    chosen = options()
    chosen.plots = tmp_path
    with pytest.raises(Failure, match=r"matplotlib is not installed.*pip install"):
        command.run(chosen)


@pytest.mark.skipif(not find_spec("matplotlib"), reason="no matplotlib")
def test_the_same_results_give_the_same_plots(tmp_path):
    made = Results({"cpu": "a processor"})
    for size in (32, 1024, 65536):
        made.add(Sample("py:one_way:bus", size, 1 << 20, 1e6 / size, "near"))
    for capacity in (1 << 16, 1 << 24):
        made.add(Sample("py:one_way:bus", 32, capacity, 1e6, "near"))
    made.add(Sample("py:round_trip:bus", 32, 1 << 20, 500, "near", [[0.5, 400.0], [0.99, 900.0], [1.0, 5000.0]]))
    names = [path.name for path in plots.draw(made, tmp_path / "a")]
    assert names == ["latency-python.svg", "by-size-python.svg", "by-capacity-python.svg"]
    plots.draw(made, tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# ---- C++ -------------------------------------------------------------------------------------------------------------

compiled = pytest.mark.skipif(bool(native.absent()), reason="built without tachyon._bench")
two_cores = pytest.mark.skipif(machine.choose_cores() is None, reason="one core")


@compiled
@two_cores
def test_cxx_is_measured_without_a_compiler(tmp_path):
    nothing = {**os.environ, "PATH": str(tmp_path)}
    words = ("--only", "c++,bus", "--repetitions", "1", "--seconds", "0.01", "--anyway", "--json", "run.json")
    out, _ = bench(*words, cwd=tmp_path, env=nothing)
    assert "C++, one way, messages/s" in out
    text = json.loads((tmp_path / "run.json").read_text())
    taken = {(sample["what"], sample["size"]) for sample in text["samples"]}
    for name in command.CXX_WAYS.split(","):
        assert {(f"one_way:{name}", size) for size in command.SIZES} <= taken
    assert {(f"round_trip:{name}", 32) for name in command.CXX_TRIPS.split(",")} <= taken
    assert {sample["placement"] for sample in text["samples"]} <= {"same core", "near", "far", "changed"}
    if text["placement"] != "changed":
        assert report.CXX_RATIOS[0][0] in out


@compiled
def test_the_compiled_module_tells_compiler_flags_and_commit():
    build = machine.build()
    assert re.match(r"(GCC|Clang) \d", build["compiler"]) or "Clang" in build["compiler"]
    assert {"-O3", "-std=c++20"} <= set(build["flags"].split())
    assert "/" not in build["flags"]
    assert re.fullmatch(r"([0-9a-f]{7,40}(-dirty)?)?", build["commit"])


@compiled
def test_a_command_that_fails_is_told_with_what_it_said():
    with pytest.raises(RuntimeError, match="no_such: usage: COMMAND"):
        native.Native((0, 1)).run("no_such")


@compiled
@two_cores
def test_the_placement_of_the_cores_is_known():
    assert native.Native(machine.choose_cores()).placement() in ("same core", "near", "far", "changed")


def test_a_program_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(native, "WATCHDOG", 0.5)
    with pytest.raises(TimeoutError, match=r"1000: given up after 0\.5 s"):
        native.Program(Path(shutil.which("sleep")), (0, 1)).run(1000)


def test_a_build_without_it_says_so(monkeypatch):
    monkeypatch.setattr(native, "MODULE", "tachyon._no_such")
    made = Results({"cpu": "", "kernel": "", "python": "", "version": "", "commit": "", "cores": []})
    made.machine["shared_cache"] = ""
    command.measure_all(made, [PEERS[0]], (0, 1), 1, 0.001, cxx=True)
    said = "\n".join(report.lines(made))
    assert "placement unknown (this build has no compiled probe)" in said
    assert "not measured: c++: this build of tachyon has no tachyon._bench" in said


def test_the_documentation_names_what_the_file_holds():
    text = (Path(__file__).parent.parent / "docs" / "performance.md").read_text()
    for word in ("schema", "machine", "samples", "quantiles", "placement", "--compare", "--anyway"):
        assert word in text
