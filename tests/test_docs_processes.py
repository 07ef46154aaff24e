"""The programs of docs/processes.md, as they stand, by every start method."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pair_children import PATIENCE

DOCS = Path(__file__).parent.parent / "docs" / "processes.md"
if not DOCS.is_file():
    pytest.skip("only in the source tree", allow_module_level=True)
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
by_every_method = pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])


def output_of(tmp_path, method, code):
    """What a program prints whose first lines choose the start method."""
    program = tmp_path / "program.py"
    choose = f'import multiprocessing\nif __name__ == "__main__": multiprocessing.set_start_method("{method}")\n'
    program.write_text(choose + code)
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@by_every_method
def test_the_first_program(tmp_path, method):
    assert output_of(tmp_path, method, BLOCKS[0]) == "b'olleh'\n"


# Each worker takes an end with its first task, and keeps it; which of them come, the pool decides.
POOL = """
def work(data):
    end.send(data, timeout=60)

def read(here):
    try:
        return [msg.data for msg in here]     # until the worker closes
    except tachyon.HandshakeError:            # nobody took the other end
        return []

if __name__ == "__main__":
    from concurrent.futures import ThreadPoolExecutor
    jobs = [pool.submit(work, b"%d" % i) for i in range(100)]   # before there are threads, which a fork does not like
    with ThreadPoolExecutor(4) as readers:
        reading = [readers.submit(read, here) for here, _ in pipes]
        for job in jobs:
            job.result(60)
        pool.shutdown()
        got = [each.result(60) for each in reading]
    assert sorted(int(data) for each in got for data in each) == list(range(100))
    print("all", any(got))
"""


@by_every_method
def test_the_workers_of_the_pool_end_orderly(tmp_path, method):
    assert output_of(tmp_path, method, "import tachyon\n" + BLOCKS[1] + POOL) == "all True\n"


def test_every_block_is_of_one_of_the_examples():
    assert len(BLOCKS) == 2
