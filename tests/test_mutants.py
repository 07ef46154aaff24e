"""The tables of tests/mutants, which are run now and then: each row still applies, and its tests are there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "cxx").is_dir(), reason="only in the source tree")


def mutants(root, *options):
    return subprocess.run(
        [sys.executable, root / "tests/mutants", *options],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_every_mutant_applies_exactly_once_and_its_tests_are_there():
    done = mutants(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.fixture
def tree(tmp_path):
    """What the tables of mutants are about, to be changed."""
    for part in ("cxx", "tachyon", "tests", "cmake"):
        shutil.copytree(
            ROOT / part,
            tmp_path / part,
            ignore=shutil.ignore_patterns("*.so", "*.a", "__pycache__", "_bench.cpp", "_tachyon.cpp"),
        )
    for part in ("setup.py", "pyproject.toml", "MANIFEST.in", "CMakeLists.txt", "README.md"):
        shutil.copy(ROOT / part, tmp_path / part)
    return tmp_path


def replace(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_mutant_whose_line_has_changed_is_told_with_the_line_that_is_most_like_it(tree):
    source = tree / "cxx/include/tachyon/ring/consumer.hpp"
    replace(source, "return !holds_whole_ring() && has_word();", "return !holds_all() && has_word();")
    done = mutants(tree, "--check", "--only", "has_frame without the cursor bound")
    assert done.returncode == 2
    assert "has it 0 times: return !holds_whole_ring() && has_word();" in done.stdout
    number = source.read_text().split("return !holds_all()")[0].count("\n") + 1
    assert f"nearest, cxx/include/tachyon/ring/consumer.hpp:{number}: " in done.stdout
    assert "return !holds_all() && has_word();" in done.stdout


def test_a_mutant_whose_line_has_moved_is_told_with_its_new_file(tree):
    replace(tree / "cxx/src/wait_set.cpp", "if (next_ > index) --next_;", "")
    (tree / "cxx/src/turns.cpp").write_text("        if (next_ > index) --next_;\n")
    done = mutants(tree, "--check", "--only", "who is removed takes another's turn")
    assert done.returncode == 2
    assert "it is now in cxx/src/turns.cpp" in done.stdout


def test_a_mutant_whose_test_is_gone_is_told(tree):
    replace(
        tree / "tests/test_abort.py",
        "def test_a_server_whose_block_an_exception_leaves_aborts_its_callers",
        "def test_x",
    )
    done = mutants(tree, "--check", "--only", "an exception that leaves a server's block is a close")
    assert done.returncode == 2
    assert "there is no such test: test_abort.py::test_a_server_whose_block_an_exception_leaves" in done.stdout


def test_lines_are_found_and_replaced_whatever_their_indentation(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/mutants")
    import table

    text = (
        "class A:\n    def f(self):\n        x = 1\n        if x:\n            y()\n    def g(self):\n        x = 1\n"
    )
    edit = table.Edit("a.py::f", "if x:\n  y()", "for x in z:\n    y(\n        x)")
    assert edit.apply(text).split("\n")[3:6] == ["        for x in z:", "            y(", "                x)"]
    assert table.Edit("a.py::g", "x = 1", "").apply(text).endswith("def g(self):\n        pass\n")
    with pytest.raises(table.StaleError, match="2 times"):
        table.Edit("a.py", "x = 1", "").apply(text)
