"""Programs of the examples, as children."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
START = "os.execv(sys.executable, [sys.executable, '-W', 'error', *sys.argv[1:]])"


@pytest.fixture
def run(spawn, path):
    """run(example, program, …) → Child: a program of an example at this test's socket."""

    def make(name, program, *arguments):
        return spawn(START, EXAMPLES / name / f"{program}.py", path, *arguments)

    return make


def complaint(child, code=1):
    """Its last words, which are one line and no traceback."""
    child.ends(code)
    text = child.errors.read_text()
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert text.startswith(("client: ", "service: ", "producer: ", "consumer: ")), text
    return text
