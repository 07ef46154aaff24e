"""Children of the tests of pairs, by every start method."""

import multiprocessing

import pair_workers
import pytest

PATIENCE = pair_workers.PATIENCE
by_every_method = pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])


@pytest.fixture
def start():
    """start(method, function, *arguments) → Process: one that does not outlive the test."""
    started = []

    def make(method, function, *arguments):
        process = multiprocessing.get_context(method).Process(target=function, args=arguments, daemon=True)
        process.start()
        started.append(process)
        return process

    yield make
    for process in started:
        process.kill()
        process.join()
        process.close()


@pytest.fixture
def note(tmp_path, until):
    """note(name) → the text that a child leaves there."""

    def read(name="note"):
        until((tmp_path / name).exists)
        return (tmp_path / name).read_text()

    read.path = lambda name="note": str(tmp_path / name)
    return read
