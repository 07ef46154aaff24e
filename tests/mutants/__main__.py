"""Shows that the tests bite: breaks one promise at a time, in a copy of the project, and expects tests to fail.

Exit status 0: each mutant was killed, by each of the tests that its row names, and the project as it is passes them;
1: one survived; 2: a row does not apply any more, or does not build, and has to be looked after.
Needs what the build and the tests need, in the Python that runs it: .venv/bin/python after `scripts/setup test`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import table
from trees import NoBuildError, Tree


def needs_python(mutant: table.Mutant) -> bool:
    return any("::" in test for test in mutant.selections())


def trial(tree: Tree, mutant: table.Mutant) -> tuple[str, str]:
    """(verdict, how)"""
    originals = tree.apply(mutant)
    compiled = needs_python(mutant) and any(path.suffix != ".py" for path in originals)
    try:
        if compiled:
            tree.build_python()
        found = {test: tree.run(test) for test in mutant.selections()}
    except NoBuildError as error:
        print(error, file=sys.stderr)
        return "NO BUILD", ""
    finally:
        tree.restore(originals)
        if compiled:
            tree.forget_python()
    survived = [test for test, how in found.items() if how is None]
    return ("SURVIVED", ", ".join(survived)) if survived else ("killed", next(iter(found.values())) or "")


def check(mutants: list[table.Mutant]) -> int:
    found = [complaint for mutant in mutants for complaint in table.complaints(mutant)]
    print("\n".join([*found, f"{len(mutants)} mutants; {len(found)} complaints"]))
    return 2 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="say which, and do nothing")
    parser.add_argument("--check", action="store_true", help="say which rows do not apply any more, and try none")
    parser.add_argument("--only", action="append", metavar="PART", help="of a name, a subject or a table; repeatable")
    parser.add_argument("--jobs", type=int, default=2, help="of a build (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there and leave it")
    arguments = parser.parse_args()

    chosen = [
        mutant
        for name, rows in table.tables().items()
        for mutant in rows
        if not arguments.only or any(part in f"{name}: {mutant}" for part in arguments.only)
    ]
    if arguments.list:
        print("\n".join(map(str, chosen)))
        return 0
    if arguments.check or not chosen:
        return check(chosen) if chosen else parser.error("no such mutant")
    if check(chosen) != 0:
        return 2

    verdicts = []
    with tempfile.TemporaryDirectory(prefix="tachyon-mutants-") as temporary:
        if arguments.keep:
            arguments.keep.mkdir(parents=True)
        tree = Tree(arguments.keep or Path(temporary), arguments.jobs)
        try:
            if any(map(needs_python, chosen)):
                tree.build_python()
            for test in sorted({test for mutant in chosen for test in mutant.selections()}):
                if failure := tree.run(test):
                    print(f"the project as it is fails {test}: {failure}", file=sys.stderr)
                    return 2
        except NoBuildError as error:
            print(f"the project as it is: {error}", file=sys.stderr)
            return 2
        for mutant in chosen:
            start = time.monotonic()
            verdict, how = trial(tree, mutant)
            verdicts.append(verdict)
            print(f"{verdict:8}  {mutant!s:100}  {time.monotonic() - start:4.0f} s  {how}", flush=True)
    print(f"{verdicts.count('killed')} of {len(chosen)} killed")
    return 2 if "NO BUILD" in verdicts else 1 if "SURVIVED" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
