"""Without NumPy, or ml_dtypes: what works, and what the rest says."""

import pytest

WITHOUT = """
import importlib.abc
class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
HIDDEN = sys.argv[2:]
sys.meta_path.insert(0, Without())
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    listening = pool.submit(tachyon.Bus.listen, path, 1 << 14, timeout=60)
    producer, consumer = tachyon.Bus.connect(path, timeout=60), listening.result()
def refused(use, *words):
    try: use()
    except ModuleNotFoundError as error: assert all(word in str(error) for word in words), error
    else: sys.exit("nothing was raised")
"""


def test_plain_buffers_go_and_come_without_numpy(spawn, path):
    child = spawn(
        WITHOUT
        + """
import array
numbers = memoryview(array.array("d", [1, 2, 3, 4, 5, 6])).cast("B").cast("d", (2, 3))
producer.send_array(numbers)
refused(lambda: consumer.recv_array(), "pip install numpy", "recv_array_zero_copy")
refused(lambda: consumer.try_recv_array(), "pip install numpy")
with consumer.recv_array_zero_copy() as a:
    assert type(a) is tachyon.ArrayGuard and a.shape == (2, 3) and a.dtype is None, a
    assert repr(a) == "<tachyon.ArrayGuard float64 (2, 3) open>", a
    with memoryview(a) as view:
        assert view.tolist() == numbers.tolist() and view.readonly
    assert "dltensor_versioned" in repr(a.__dlpack__(max_version=(1, 0)))
    refused(a.array, "pip install numpy")
    producer_side = memoryview(a)
    producer_side.release()
with producer.send_array_zero_copy((2, 3), "float64") as a:
    with memoryview(a) as view:
        view[1, 2] = 7.5
    refused(lambda: producer.send_array_zero_copy(3, "f4"), "pip install numpy")
with consumer.recv_zero_copy() as rx:
    refused(rx.array, "pip install numpy")
    refused(lambda: tachyon.as_array(rx), "pip install numpy")
    assert len(rx) == 96 and bytes(rx)[-8:] == bytes(array.array("d", [7.5]))
assert consumer.try_recv() is None
assert "numpy" not in sys.modules
say("done")
""",
        path,
        "numpy",
    )
    child.says("done")
    child.ends()


def test_bfloat16_is_a_tensor_without_ml_dtypes(spawn, path):
    pytest.importorskip("numpy")
    child = spawn(
        WITHOUT
        + """
import numpy as np
with producer.send_array_zero_copy((2, 2), "bfloat16") as a:
    assert type(a) is tachyon.ArrayGuard and a.dtype is None
    assert "dltensor" in repr(a.__dlpack__())
with consumer.recv_array_zero_copy() as a:
    assert type(a) is tachyon.ArrayGuard and a.shape == (2, 2)
    assert "bfloat16" in repr(a)
producer.send_array(np.zeros(3))
with consumer.recv_array_zero_copy() as a:
    assert type(a) is np.ndarray
say("done")
""",
        path,
        "ml_dtypes",
    )
    child.says("done")
    child.ends()


def test_neither_is_imported_before_it_is_used(spawn, path):
    child = spawn("say('numpy' in sys.modules, 'ml_dtypes' in sys.modules, 'json' in sys.modules)", path)
    assert child.line().split()[:2] == ["False", "False"]
    child.ends()
