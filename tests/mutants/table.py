"""What a row of the tables is, where it applies, and what to tell of one that does not any more."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("cxx/**/*.[ch]pp", "tachyon/**/*.p*", "cmake/*", "setup.py", "*.toml", "*.in", "CMakeLists.txt", "README.md")


class StaleError(Exception):
    """A row that does not apply exactly once."""


@dataclasses.dataclass
class Mutant:
    """One broken promise: in `file`, `old` becomes `new`, and each of `tests` has to fail.

    `file` may name a function too, "tachyon/_rpc.pxi::cancel_call": then `old` has to be there once, whoever else has
    it. Lines are compared without their indentation; those of `new` get that of the first one that they replace, and
    keep what they have among themselves. No `new` takes the text away.
    `tests`, apart by spaces: "cxx/ring" is cxx/tests/ring.tests.cpp with ring_*.tests.cpp, "tsan/…" the same under
    ThreadSanitizer; anything else is one of pytest's names, without the folder.
    `also`: further edits of the same mutation, each a (file, old, new).
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    also: tuple[tuple[str, str, str], ...] = ()
    subject: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.name}"

    def edits(self) -> list[Edit]:
        return [Edit(*edit) for edit in ((self.file, self.old, self.new), *self.also)]

    def selections(self) -> list[str]:
        # A parameter's name may have spaces in it, a file's not.
        return re.split(r" +(?=(?:cxx/|tsan/|test_\w+\.py))", self.tests)


@dataclasses.dataclass
class Edit:
    where: str
    old: str
    new: str

    @property
    def file(self) -> str:
        return self.where.partition("::")[0]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where `old` stands in the text, or in the function of it."""
        lines = [re.escape(line.strip()) for line in self.old.strip("\n").split("\n")]
        pattern = re.compile(r"[ \t]*\n\s*".join(lines))
        begin, end = function(text, self.where.partition("::")[2])
        return [match.span() for match in pattern.finditer(text, begin, end)]

    def apply(self, text: str) -> str:
        spans = self.spans(text)
        if len(spans) != 1:
            raise StaleError(f"{self.where}: it is there {len(spans)} times, not once: {self.old.strip()!r}")
        ((begin, end),) = spans
        first, *rest = textwrap.dedent(self.new.strip("\n")).split("\n")
        if not self.new and self.file.endswith((".py", ".pyx", ".pxi")) and is_statement(text, begin, end):
            first = "pass"
        line = text[text.rfind("\n", 0, begin) + 1 : begin]
        indent = line[: len(line) - len(line.lstrip())]
        return text[:begin] + "\n".join([first, *(indent + more if more else "" for more in rest)]) + text[end:]


def is_statement(text: str, begin: int, end: int) -> bool:
    """Whether it is whole lines, and not of the C that stands in some Cython files."""
    before = text[text.rfind("\n", 0, begin) + 1 : begin]
    return not before.strip() and text[end : end + 1] in ("", "\n", " ") and text[end - 1] != ";"


def function(text: str, name: str) -> tuple[int, int]:
    """The place of one function, or of all of the text: from its head to the next line that is indented no deeper."""
    if not name:
        return 0, len(text)
    python = rf"(?:async )?(?:cpdef|cdef|def)\b[^\n=]*?\b{re.escape(name)}\("
    cxx = rf"[\w:<>\[\]&*~ ]*?\b{re.escape(name)}\([^;{{}}]*\)[^;{{}}()]*{{"
    head = re.search(rf"^([ \t]*)(?:{python}|{cxx})", text, re.MULTILINE)
    if head is None:
        return 0, 0
    after = re.compile(rf"^[ \t]{{0,{len(head[1])}}}[^\s)}}]", re.MULTILINE).search(
        text, text.find("\n", head.end()) + 1
    )
    return head.start(), after.start() if after else len(text)


def tables() -> dict[str, list[Mutant]]:
    """The rows by table."""
    found = {}
    for path in sorted(Path(__file__).with_name("tables").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"tables.{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[path.stem] = [
            dataclasses.replace(mutant, subject=subject) for subject, rows in module.TABLE.items() for mutant in rows
        ]
    return found


def complaints(mutant: Mutant) -> Iterator[str]:
    """What keeps it from being tried: a pattern that has moved, or a test that is not there."""
    for edit in mutant.edits():
        path = ROOT / edit.file
        text = path.read_text() if path.is_file() else ""
        count = len(edit.spans(text))
        if count != 1:
            yield f"{mutant}\n  {edit.where} has it {count} times: {edit.old.strip()}\n  {nearest(edit, text)}"
    for test in mutant.selections():
        if not exists(test):
            yield f"{mutant}\n  there is no such test: {test}"


def nearest(edit: Edit, text: str) -> str:
    """Where it stands now, or the line that is most like it."""
    anywhere = dataclasses.replace(edit, where="")
    for path in sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)}):
        if path.is_file() and len(anywhere.spans(path.read_text(errors="replace"))) == 1:
            return f"it is now in {path.relative_to(ROOT)}"
    wanted = max(edit.old.split("\n"), key=lambda line: len(line.strip())).strip()
    lines = {line.strip(): number for number, line in reversed(list(enumerate(text.split("\n"), 1)))}
    close = difflib.get_close_matches(wanted, lines, n=1, cutoff=0.3)
    return f"nearest, {edit.file}:{lines[close[0]]}: {close[0]}" if close else f"nothing like it is in {edit.file}"


def units(test: str, root: Path = ROOT) -> list[str]:
    """The C++ test programs of "cxx/ring": ring, ring_holding and so on, the one of that very name first."""
    name = test.partition("/")[2]
    found = sorted((root / "cxx/tests").glob(f"{name}.tests.cpp")) + sorted(
        (root / "cxx/tests").glob(f"{name}_*.tests.cpp")
    )
    return [path.name.removesuffix(".tests.cpp") for path in found]


def exists(test: str) -> bool:
    if "/" in test.partition(".py")[0]:
        return bool(units(test))
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    return (
        path.is_file() and re.search(rf"^def {re.escape(name.partition('[')[0])}\(", path.read_text(), re.M) is not None
    )
