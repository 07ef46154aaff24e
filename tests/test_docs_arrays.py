"""The examples of docs/arrays.md, word for word: the camera, the training, the calls."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tachyon

DOCS = Path(__file__).parent.parent / "docs" / "arrays.md"
if not DOCS.is_file():
    pytest.skip("only in the source tree", allow_module_level=True)
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)


def block(mark):
    (found,) = [each for each in BLOCKS if mark in each]
    return found


def run_both(tmp_path, producer, consumer, patience=100):
    """What the consumer's program printed."""
    path = str(tmp_path / "bus")
    programs = []
    for name, code in (("consumer", consumer), ("producer", producer)):
        program = tmp_path / f"{name}.py"
        program.write_text(code.replace("/tmp/camera.sock", path))
        programs.append(
            subprocess.Popen([sys.executable, program, path], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        )
    try:
        said = programs[0].communicate(timeout=patience)[0]
        assert programs[1].wait(patience) == 0
        assert programs[0].returncode == 0
    finally:
        for each in programs:
            each.kill()
            each.communicate()
    return said


def test_the_camera(tmp_path):
    assert run_both(tmp_path, block("# camera.py"), block("# vision.py")).split() == ["100", "99.0"]


def test_the_training(tmp_path):
    pytest.importorskip("torch")
    said = run_both(tmp_path, block("# loader.py"), block("# train.py"))
    assert re.fullmatch(r"loss \d\.\d+\n", said)


def test_the_first_lines(pair):
    producer, consumer = pair(1 << 23)
    a, bus = np.arange(6.0).reshape(2, 3), type("Both", (), {})()
    for name in ("send_array", "send_array_zero_copy"):
        setattr(bus, name, getattr(producer, name))
    for name in ("recv_array", "recv_array_zero_copy"):
        setattr(bus, name, getattr(consumer, name))
    space = {"bus": bus, "a": a, "out": np.zeros((2, 3))}
    send, receive, out, in_place, write = list(re.split(r"\n(?=\S)", block("bus.recv_array(out)").strip()))
    for use in (receive, out, in_place):
        exec(send, space | {"a": a})
        exec(use, space)
    assert (space["out"] == a).all()
    assert space["total"] == 15
    exec(write, space)
    assert consumer.recv_array(timeout=30).shape == (1080, 1920, 3)


def test_the_calls(rpc, run_thread):
    caller, callee = rpc()
    x = np.arange(4.0)
    call, serve = block("caller.call_array(x").split("\n\n")
    space = {"caller": caller, "callee": callee, "x": x}
    serving = run_thread(exec, serve, dict(space))
    exec(call, space)
    serving.result(60)
    assert (space["y"] == 2 * x).all()
    space |= {"tachyon": tachyon, "model": lambda a: a + 1}
    handler, use = block("def infer").split("\n\n")
    exec(handler, space)
    dispatcher = tachyon.RpcDispatcher()
    dispatcher.register(space["infer"])
    serving = run_thread(dispatcher.serve_once, callee)
    exec(use, space)
    serving.result(60)
    assert (space["y"] == x + 1).all()


def test_every_block_is_of_one_of_the_examples():
    assert len(BLOCKS) == 7
