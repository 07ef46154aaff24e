"""The worker queue of the examples: each batch to one worker, whatever becomes of the others."""

import re
import runpy

import pytest
from example_programs import EXAMPLES, START

import tachyon

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only in the source tree")

WORKER = """
    import runpy
    batches = runpy.run_path(sys.argv[2])["batches"]
    count, total = 0, 0
    try:
        for batch in batches(path, timeout=60):
            count += 1
            total += int(batch.sum())
            if len(sys.argv) > 3: say("has one"); hear()
        say(count, total)
    except tachyon.PeerDeadError as error: say(error.reason)
"""
PROGRAM = EXAMPLES / "worker_queue" / "worker_queue.py"


@pytest.fixture
def feeder_with(spawn, path, run_thread):
    """feeder_with(*kinds) → (Feeder, workers): one of `kinds` "slow" waits after each batch until it is told."""

    def make(*kinds):
        make_feeder = runpy.run_path(str(PROGRAM))["Feeder"]
        listening = run_thread(make_feeder, path, len(kinds), 4096, timeout=60)
        workers = [spawn(WORKER, path, PROGRAM, *([kind] if kind else [])) for kind in kinds]
        return listening.result(60), workers

    return make


def test_each_batch_goes_to_one_worker_and_the_end_to_all(feeder_with):
    feeder, workers = feeder_with("", "", "")
    with feeder:
        for i in range(1000):
            feeder.put(np.full((2, 8), i, np.float32))
    got = [tuple(map(int, worker.line().split())) for worker in workers]
    assert sum(count for count, _ in got) == 1000
    assert sum(total for _, total in got) == 16 * sum(range(1000))
    assert all(count > 0 for count, _ in got)


def test_a_slow_worker_keeps_nobody_waiting_and_a_dead_one_is_dropped(feeder_with):
    feeder, (slow, quick) = feeder_with("slow", "")
    with feeder:
        for _ in range(200):
            feeder.put(np.ones((2, 8), np.float32))
        slow.says("has one")
        slow.kill()
        for _ in range(200):
            feeder.put(np.ones((2, 8), np.float32))
    count = int(quick.line().split()[0])
    assert 400 - 4096 // 128 <= count < 400  # all but what lay in the ring of the slow one


def test_without_workers_putting_is_an_error_and_an_exception_is_no_end(feeder_with):
    feeder, (worker,) = feeder_with("")
    with pytest.raises(ZeroDivisionError), feeder:
        feeder.put(np.ones((2, 8), np.float32))
        1 / 0
    worker.says("aborted")
    feeder, (worker,) = feeder_with("")
    worker.kill()
    with pytest.raises(tachyon.PeerDeadError), feeder:
        for _ in range(1000):
            feeder.put(np.ones((2, 8), np.float32))


def test_the_comparison_prints_a_rate_for_each_way(spawn):
    child = spawn(START, EXAMPLES / "worker_queue" / "compare.py", "--count", 20, "--rows", 4, "--workers", 2)
    lines = child.ends().splitlines()
    assert lines[0] == "20 batches of 16,384 bytes to 2 workers"
    names = ["tachyon", "shared_memory by hand", "pyzmq", "multiprocessing.Queue"]
    assert [line[:24].strip() for line in lines[1:]] == names
    for line in lines[1:]:
        assert re.search(r" [\d,]+ batches/s +[\d,]+ MB/s +\d+\.\d\d$|not installed", line), line
