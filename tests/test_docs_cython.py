"""The examples of docs/cython.md compile as they stand, and do what the text says."""

import re
from pathlib import Path

import pytest
from downstream import build, load, need_compiler

import tachyon

need_compiler()

DOCS = Path(__file__).parent.parent / "docs" / "cython.md"
if not DOCS.is_file():
    pytest.skip("only in the source tree", allow_module_level=True)
BLOCKS = re.findall(r"^```cython\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)


def block(mark):
    (found,) = [each for each in BLOCKS if mark in each]
    return found


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    source = block("bus.drain(frames") + block("serve_upper") + block("fill_view(") + block("fill_array_view(")
    folder = build(tmp_path_factory.mktemp("methods"), "docs_methods", source)
    return load(folder, "docs_methods")


@pytest.fixture(scope="module")
def inlined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inlined")
    build(folder, "docs_inlined", block("borrow_consumer(bus)"), include=tachyon.get_include())
    return load(folder, "docs_inlined")


@pytest.mark.parametrize("sender", ["methods", "inlined"])
@pytest.mark.parametrize("receiver", ["methods", "inlined"])
def test_the_streams(request, run_thread, pair, sender, receiver):
    producer, consumer = pair(4096)
    summing = run_thread(request.getfixturevalue(receiver).sum_numbers, consumer)
    request.getfixturevalue(sender).send_numbers(producer, 10_000)
    producer.close()
    assert summing.result(60) == 10_000 * 9_999 // 2


def test_the_server(methods, run_thread, rpc):
    caller, callee = rpc()
    serving = run_thread(methods.serve_upper, callee)
    with caller.wait(caller.call(b"Hello, 10^9!", 1), timeout=60) as reply:
        assert bytes(reply) == b"HELLO, 10^9!"
    caller.close()
    serving.result(60)


def test_the_typed_memoryviews(methods, pair):
    producer, consumer = pair()
    methods.fill(producer, 3)
    with consumer.recv_zero_copy(timeout=60) as rx:
        assert rx.type_id == 7
        assert methods.total(rx) == 300


def test_every_block_is_of_one_of_the_examples():
    assert len(BLOCKS) == 6


def test_the_table_of_statuses_is_that_of_the_pxd():
    pxd = (Path(tachyon.__file__).parent / "__init__.pxd").read_text()
    declared = {int(number): name for name, number in re.findall(r"^    ([A-Z_]+) = (\d+)", pxd, re.MULTILINE)}
    text = DOCS.read_text().partition("### Statuses")[2].partition("###")[0]
    assert declared == {int(number): name for number, name in re.findall(r"(\d+) `([A-Z_]+)`", text)}


def test_the_arrays(methods, pair):
    np = pytest.importorskip("numpy")
    producer, consumer = pair()
    producer.send_array(np.arange(6, dtype="f4").reshape(2, 3))
    assert methods.sum_array(consumer) == 15
    for other in (np.zeros((2, 3)), np.zeros(6, "f4"), np.zeros((3, 2), "f4").T, np.zeros((2, 3), ">f4")):
        producer.send_array(other)
        with pytest.raises((ValueError, BufferError)):
            methods.sum_array(consumer)
    methods.fill_array(producer)  # everything has been let go of
    assert consumer.recv_array(timeout=30).tolist() == [[7] * 3] * 2
