"""The downstream modules at work, against what is installed. In a fresh process they are imported before tachyon."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

COUNT = 100_000

RECEIVE = """
import sys
from tachyon_consumer import {module}
import tachyon
with tachyon.Bus.listen(sys.argv[1], 1 << 16, timeout=60) as bus:
    print({module}.{function}(bus))
"""
SERVE = """
import sys
from tachyon_consumer import methods
import tachyon
with tachyon.RpcBus.listen(sys.argv[1], 4096, 4096, timeout=60) as bus:
    methods.double(bus)
"""


def start(code, path, tmp_path):
    return subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, cwd=tmp_path)


@pytest.mark.parametrize("sender", ["methods", "inlined"])
@pytest.mark.parametrize("receiver", ["methods.sum_numbers", "methods.sum_numbers_in_batches", "inlined.sum_numbers"])
def test_numbers_arrive_and_add_up(tmp_path, sender, receiver):
    import importlib

    module = importlib.import_module(f"tachyon_consumer.{sender}")
    import tachyon

    path = str(tmp_path / "bus")
    name, _, function = receiver.partition(".")
    child = start(RECEIVE.format(module=name, function=function), path, tmp_path)
    try:
        with tachyon.Bus.connect(path, timeout=60) as bus:
            module.send_numbers(bus, COUNT)
        out, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert int(out) == COUNT * (COUNT + 1) // 2
    assert child.returncode == 0


def test_calls_are_served_without_the_gil(tmp_path):
    import tachyon

    path = str(tmp_path / "rpc")
    child = start(SERVE, path, tmp_path)
    try:
        with tachyon.RpcBus.connect(path, timeout=60) as bus:
            for number in (1, 21, 1 << 40):
                with bus.wait(bus.call(number.to_bytes(8, sys.byteorder), 1), timeout=60) as reply:
                    assert int.from_bytes(bytes(reply), sys.byteorder) == 2 * number
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.stdout.close()


def test_typed_memoryviews_over_frames(tmp_path):
    from tachyon_consumer import methods

    import tachyon

    path = str(tmp_path / "views")
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(tachyon.Bus.listen, path, 1 << 16, timeout=60)
        with tachyon.Bus.connect(path, timeout=60) as sender, listening.result() as receiver:
            with sender.send_zero_copy(100) as tx:
                methods.fill(tx, 3)
            with receiver.recv_zero_copy(timeout=60) as rx:
                assert methods.total(rx) == 300
                with pytest.raises((BufferError, ValueError)):
                    methods.fill(rx, 4)


def test_the_wrong_thing_is_no_bus():
    from tachyon_consumer import inlined, methods

    for call in (methods.sum_numbers, inlined.sum_numbers):
        for wrong in (None, object(), "bus"):
            with pytest.raises(TypeError):
                call(wrong)
