"""Arrays from and to whatever speaks DLPack: a stand-in everywhere, torch where it is installed."""

import numpy as np
import pytest

from tachyon import ArrayPayload, as_array

NEW_NUMPY = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1)
X = np.arange(6, dtype="f4").reshape(2, 3)


class Tensor:
    """Of a library that has no buffers, only DLPack: by way of NumPy's."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, max_version=None):
        return self.array.__dlpack__() if max_version is None else self.array.__dlpack__(max_version=max_version)


class Old(Tensor):
    """Of before DLPack 1.0."""

    def __dlpack__(self, *, stream=None):
        return self.array.__dlpack__()


@pytest.mark.parametrize("kind", ["f4", "f2", "i8", "u1", "?", "c8", "f8"])
@pytest.mark.parametrize("library", [pytest.param(Tensor, marks=pytest.mark.skipif(not NEW_NUMPY, reason="old")), Old])
def test_a_tensor_is_sent_by_dlpack_whatever_its_strides(pair, kind, library):
    producer, consumer = pair()
    whole = np.arange(24).reshape(4, 6).astype(kind)
    for array in (whole, whole.T, whole[::2, 1::2], whole[1:1], np.array(5, kind), np.broadcast_to(whole, (2, 4, 6))):
        array = array if array.flags.writeable else array.copy()
        producer.send_array(library(array))
        got = consumer.recv_array(timeout=30)
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert (got == array).all()


@pytest.mark.parametrize(
    ("tensor", "error", "text"),
    [
        (Tensor(X, (2, 0)), ValueError, r"on device \(2, 0\); copy it to the CPU"),
        (Old(np.zeros((1,) * 9)), ValueError, "9 dimensions"),
    ],
)
def test_a_tensor_that_cannot_be_sent_is_refused(pair, tensor, error, text):
    with pytest.raises(error, match=text):
        pair()[0].send_array(tensor)


def test_what_is_no_capsule_of_dlpack_is_refused(pair):
    tensor = Old(X)
    tensor.array = type("Array", (), {"__dlpack__": lambda self: 5})()
    with pytest.raises(TypeError, match="returned no tensor"):
        pair()[0].send_array(tensor)


def test_memory_that_was_pinned_is_the_cpus(pair):
    producer, consumer = pair()
    producer.send_array(Old(X, (3, 0)))
    assert (consumer.recv_array(timeout=30) == X).all()


@pytest.mark.skipif(not NEW_NUMPY, reason="this numpy does not know read-only tensors")
@pytest.mark.parametrize("array", [X, X.T, np.array(5.0), np.zeros((1, 2, 1, 2, 1, 2, 1, 2), "i2"), np.ones(3, "?")])
def test_a_guard_is_a_tensor_with_shape_and_type(pair, array):
    producer, consumer = pair()
    producer.send_array(array)
    guard = consumer.recv_array_zero_copy(timeout=30)
    assert guard.__dlpack_device__() == (1, 0)
    got = np.from_dlpack(guard)
    assert (got.dtype, got.shape, got.strides) == (array.dtype, array.shape, array.strides)
    assert (got == array).all()
    assert not got.flags.writeable
    assert got.ctypes.data % 64 == 0
    with pytest.raises(BufferError, match=r"1 view\(s\)"):
        guard.release()
    assert (got == array).all()
    del got
    assert guard.released
    guard = producer.send_array_zero_copy((2, 3), "f4")
    got = np.from_dlpack(guard)
    got[:] = 5
    del got
    guard.release()
    assert (consumer.recv_array(timeout=30) == 5).all()


@pytest.mark.parametrize("array", [np.zeros(2, ">i4"), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "i4")])])
def test_what_dlpack_has_no_numbers_for_is_no_tensor(pair, array):
    producer, consumer = pair()
    producer.send_array(array)
    with consumer.recv_array_zero_copy(timeout=30) as a:
        assert a.dtype == array.dtype
    producer.send_array(array)
    guard = consumer.recv_array_zero_copy(timeout=30)
    with pytest.raises(BufferError, match="no numbers"):
        guard.__dlpack__(max_version=(1, 0))


# ---- torch -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def comparable(tensor):
    """Not all of torch's types can be compared."""
    return tensor if tensor.is_complex() else tensor.double()


@pytest.mark.parametrize(
    "kind", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64", "float8_e4m3fn"]
)
def test_tensors_of_torch_go_and_come(torch, pair, kind):
    producer, consumer = pair()
    whole = torch.arange(24).reshape(4, 6).to(getattr(torch, kind))
    for sent in (whole, whole.T, whole[::2, 1:], whole[1:1], whole[2, 3]):
        producer.send_array(sent)
        guard = consumer.recv_array_zero_copy(timeout=30)
        got = torch.from_dlpack(guard)
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert torch.equal(comparable(got), comparable(sent))
        assert got.data_ptr() % 64 == 0 or not got.numel()
        with pytest.raises(BufferError):
            guard.release()
        del got
        assert guard.released
        guard = producer.send_array_zero_copy(tuple(sent.shape), kind)
        into = torch.from_dlpack(guard)
        into.copy_(sent)
        del into
        guard.release()
        got = torch.from_dlpack(consumer.recv_array_zero_copy(timeout=30)).clone()
        assert torch.equal(comparable(got), comparable(sent))


def test_a_tensor_made_of_the_blocks_array_holds_the_frame(torch, pair):
    producer, consumer = pair(128)
    producer.send_array(X)
    with pytest.raises(BufferError):
        with consumer.recv_array_zero_copy(timeout=30) as a:
            a = torch.from_dlpack(a)
    assert not producer.try_send(bytes(100))
    assert a.sum() == 15
    del a
    assert producer.try_send(bytes(100))


def test_a_tensor_that_needs_a_gradient_says_so(torch, pair):
    with pytest.raises(Exception, match="requires? grad"):
        pair()[0].send_array(torch.zeros(3, requires_grad=True))


def test_a_handler_answers_with_a_tensor(torch, rpc, run_thread):
    from tachyon import RpcDispatcher

    caller, callee = rpc()
    dispatcher = RpcDispatcher()
    layer = torch.nn.Linear(3, 2)

    @dispatcher.handler(1)
    def infer(payload):
        with torch.inference_mode():
            return ArrayPayload(layer(torch.tensor(as_array(payload))))

    served = run_thread(dispatcher.serve_once, callee, timeout=60)
    got = as_array(infer.call(caller, ArrayPayload(X), timeout=60))
    served.result(60)
    assert np.allclose(got, layer(torch.tensor(X)).detach().numpy())
