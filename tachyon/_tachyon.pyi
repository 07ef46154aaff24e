"""What _tachyon.pyx offers, for type checkers."""

import sys
from asyncio import Future
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from mmap import mmap
from os import PathLike
from types import TracebackType
from typing import (
    Any,
    Final,
    Literal,
    NoReturn,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypedDict,
    TypeVar,
    final,
    overload,
    type_check_only,
)

from _typeshed import ReadableBuffer, WriteableBuffer
from numpy import dtype, ndarray  # for type checkers: NumPy is imported when it is used, and not before
from numpy.typing import DTypeLike
from typing_extensions import Self, disjoint_base  # of the type checker; needs not be installed

from tachyon._objects import AnyCodec

_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
_Seconds: TypeAlias = SupportsFloat | SupportsIndex
_Data: TypeAlias = ReadableBuffer | ArrayPayload
_Item: TypeAlias = _Data | tuple[_Data, SupportsIndex] | Message

@type_check_only
class _Tensor(Protocol):  # what speaks DLPack: torch's, jax's
    def __dlpack_device__(self) -> tuple[Any, int]: ...
    def __dlpack__(self, *, stream: Any = None) -> Any: ...

_Array: TypeAlias = ReadableBuffer | _Tensor
_NDArray: TypeAlias = ndarray[Any, dtype[Any]]
_Out = TypeVar("_Out", bound=_NDArray)
_Shape: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | list[SupportsIndex]
_T = TypeVar("_T")

@type_check_only
class _HasFileno(Protocol):
    def fileno(self) -> int: ...

class _Stats(TypedDict):
    role: Literal["producer", "consumer"] | None
    messages: int
    position: int
    parks: int
    wakes: int
    spin_budget_ns: int
    capacity: int

__version__: Final[str]
MIN_CAPACITY: Final[int]
MAX_CAPACITY: Final[int]
_OWNER_ONLY: Final[int]

@final
class Message:
    """A received message: `type_id`, `size` in bytes, and `data`, a bytes object to keep as long as one likes."""

    __match_args__: Final = ("type_id", "size", "data")
    @property
    def type_id(self) -> int: ...
    @property
    def size(self) -> int:
        """Number of bytes in `data`."""
    @property
    def data(self) -> bytes: ...
    def __new__(cls, type_id: SupportsIndex = 0, size: int | None = None, data: bytes = b"") -> Message: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Message, /) -> bool: ...
    def __le__(self, other: Message, /) -> bool: ...
    def __gt__(self, other: Message, /) -> bool: ...
    def __ge__(self, other: Message, /) -> bool: ...
    def __hash__(self) -> int: ...

class _BusArrays:
    """What Bus has for arrays."""
    def send_array(self, array: _Array, type_id: SupportsIndex = 0, *, timeout: _Seconds | None = None) -> None:
        """Send an array, with its shape and type: NumPy's, any other buffer, or what speaks DLPack (torch, jax)."""
    def try_send_array(self, array: _Array, type_id: SupportsIndex = 0) -> bool:
        """Send an array if there is room now. False if the ring is full. Otherwise as send_array."""
    def send_array_zero_copy(
        self, shape: _Shape, dtype: DTypeLike, type_id: SupportsIndex = 0, *, timeout: _Seconds | None = None
    ) -> ArrayGuard:
        """Claim room for an array, to be written in place: `with bus.send_array_zero_copy((3, 4), "f4") as a: ...`."""
    @overload
    def recv_array(self, out: None = None, *, timeout: _Seconds | None = None) -> _NDArray:
        """Wait for the next message, an array, and return a copy of it, aligned to 64 bytes; or copy it into `out`."""
    @overload
    def recv_array(self, out: _Out, *, timeout: _Seconds | None = None) -> _Out: ...
    @overload
    def try_recv_array(self, out: None = None) -> _NDArray | None:
        """Return the next array if there is a message now, else None. Otherwise as recv_array."""
    @overload
    def try_recv_array(self, out: _Out) -> _Out | None: ...
    def recv_array_zero_copy(self, *, timeout: _Seconds | None = None) -> ArrayGuard:
        """Wait for the next array; return it in place, as an ArrayGuard: `with bus.recv_array_zero_copy() as a:
        ...`.
        """

@disjoint_base
class Bus(_BusArrays):
    """One direction between two processes. Made by Bus.listen and Bus.connect; a context manager."""
    def __init__(self, *args: object, **kwargs: object) -> None: ...  # always TypeError
    @staticmethod
    def listen(
        socket_path: _Path,
        capacity: SupportsIndex,
        *,
        timeout: _Seconds | None = None,
        mode: SupportsIndex = 0o600,
        max_large: SupportsIndex = 1073741824,
    ) -> Bus:
        """Create a ring of `capacity` bytes and wait until one peer has connected to `socket_path`."""
    @staticmethod
    def connect(
        socket_path: _Path,
        *,
        timeout: _Seconds | None = 0.0,
        uid: SupportsIndex | None = None,
        max_capacity: SupportsIndex | None = 1073741824,
        max_large: SupportsIndex = 1073741824,
    ) -> Bus:
        """Attach to the bus that a listener offers at `socket_path`."""
    def send(self, data: _Data, type_id: SupportsIndex = 0, *, timeout: _Seconds | None = None) -> None:
        """Send the bytes of any buffer (strided ones in C order); wait while the ring is full."""
    def try_send(self, data: _Data, type_id: SupportsIndex = 0) -> bool:
        """Send if there is room now. False if the ring is full. Otherwise as send."""
    def send_many(self, items: Iterable[_Item], type_id: SupportsIndex = 0, *, timeout: _Seconds | None = None) -> int:
        """Send each item of an iterable: a buffer, a (buffer, type_id) pair, or a Message. Returns how many were
        sent.
        """
    def send_zero_copy(
        self, size: SupportsIndex, type_id: SupportsIndex = 0, *, timeout: _Seconds | None = None
    ) -> TxGuard:
        """Claim room for `size` bytes, to be written in place within a `with` block."""
    def send_obj(
        self,
        o: object,
        type_id: SupportsIndex = 0,
        *,
        codec: AnyCodec | None = None,
        allow_pickle: bool = False,
        timeout: _Seconds | None = None,
    ) -> None:
        """Encode an object and send it; wait while the ring is full."""
    def try_send_obj(
        self, o: object, type_id: SupportsIndex = 0, *, codec: AnyCodec | None = None, allow_pickle: bool = False
    ) -> bool:
        """Send an object if there is room now. False if the ring is full. Otherwise as send_obj."""
    @overload
    def recv_obj(
        self,
        *,
        type: type[_T],
        codec: AnyCodec | None = None,
        allow_pickle: bool = False,
        timeout: _Seconds | None = None,
    ) -> _T:
        """Wait for the next message and return the object in it, which has memory of its own."""
    @overload
    def recv_obj(
        self,
        *,
        type: Any = None,
        codec: AnyCodec | None = None,
        allow_pickle: bool = False,
        timeout: _Seconds | None = None,
    ) -> Any:
        """Wait for the next message and return the object in it, which has memory of its own."""
    def try_recv_obj(
        self, default: Any = None, *, type: Any = None, codec: AnyCodec | None = None, allow_pickle: bool = False
    ) -> Any:
        """Return the object in the next message if there is one now, else `default`. Otherwise as recv_obj."""
    @overload
    def objects(self, *, type: type[_T], codec: AnyCodec | None = None, allow_pickle: bool = False) -> Iterator[_T]:
        """Iterate over the objects that come: `for o in bus.objects()`. Ends when the producer closes."""
    @overload
    def objects(self, *, type: Any = None, codec: AnyCodec | None = None, allow_pickle: bool = False) -> Iterator[Any]:
        """Iterate over the objects that come: `for o in bus.objects()`. Ends when the producer closes."""
    def wait_read(self, *, timeout: _Seconds | None = None) -> None:
        """Wait until the consumer has let go of everything sent so far: copied it, or left its guards."""
    def finish(self, *, timeout: _Seconds | None = None) -> None:
        """End the stream, wait until the consumer has read everything and closed its end, then close ours."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> Message: ...
    def recv(self, *, timeout: _Seconds | None = None) -> Message:
        """Wait for the next message and return it as a Message with its own bytes."""
    def try_recv(self) -> Message | None:
        """Return the next message if there is one now, else None. Otherwise as recv."""
    def recv_into(self, buffer: WriteableBuffer, *, timeout: _Seconds | None = None) -> tuple[int, int]:
        """Wait for the next message and copy it into a writable, contiguous buffer. Returns (size, type_id)."""
    def recv_zero_copy(self, *, timeout: _Seconds | None = None) -> RxGuard:
        """Wait for the next message and return it in place, as an RxGuard with a read-only buffer, for a `with`
        block.
        """
    def drain_batch(
        self, max_msgs: SupportsIndex = 1024, spin_threshold: SupportsIndex = 10000, *, timeout: _Seconds | None = None
    ) -> RxBatchGuard:
        """Wait for a message, then take up to `max_msgs` in place, as an RxBatchGuard for a `with` block."""
    def fileno(self) -> int:
        """Return a descriptor for select, epoll, Qt, GLib, trio and their like: one, for reading; see arm()."""
    def arm(self, for_writing: object = False) -> bool:
        """Before you wait for fileno(): ask the peer to ring. False: do not wait, something may be there already."""
    def disarm(self) -> bool:
        """Once fileno() is readable: silence it, until the next ring after an arm(). Then try."""
    def flush(self) -> None:
        """Make everything done so far visible to the peer now, and wake it. send and the guards do so by themselves."""
    def set_polling_mode(self, pure_spin: object) -> None:
        """True: waits never sleep, for the lowest latency at the price of a core. False: they spin, then sleep."""
    def set_numa_node(self, node: SupportsIndex) -> None:
        """Move the ring's memory to a NUMA node. Best before the first message. ValueError if there is none such."""
    def stats(self) -> _Stats:
        """Return counters of this side: role, messages, bytes of ring so far, waits that parked, wakes of the peer."""
    @property
    def capacity(self) -> int:
        """Bytes of ring, as given to listen."""
    @property
    def max_message_size(self) -> int:
        """Largest message in bytes that goes through the ring, once the consumer has freed the rest: capacity - 16."""
    @property
    def max_large_size(self) -> int:
        """Largest message in bytes at all. Beyond max_message_size it goes in memory of its own, up to the smaller
        max_large of both sides; where that is 0, nothing does.
        """
    @property
    def peer_pid(self) -> int:
        """Process id of the peer; 0 if it lives in a PID namespace that we cannot see."""
    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
    def close(self) -> None:
        """Tell the peer that nothing more will come, and let go. Idempotent, never waits; allowed from any thread."""
    def abort(self) -> None:
        """Give up: as close(), but the peer learns that what it got is not the whole."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

# Before Python 3.12 stubs of functions that take buffers list classes, as that of np.frombuffer does: a guard passes
# for one of them, without what that one can do and a guard cannot.
if sys.version_info >= (3, 12):
    @type_check_only
    class _Buffer: ...

else:
    @type_check_only
    class _Buffer(mmap):
        closed: None  # type: ignore[assignment]
        close: None  # type: ignore[assignment]
        find: None  # type: ignore[assignment]
        flush: None  # type: ignore[assignment]
        madvise: None  # type: ignore[assignment]
        move: None  # type: ignore[assignment]
        read: None  # type: ignore[assignment]
        read_byte: None  # type: ignore[assignment]
        readline: None  # type: ignore[assignment]
        resize: None  # type: ignore[assignment]
        rfind: None  # type: ignore[assignment]
        seek: None  # type: ignore[assignment]
        size: None  # type: ignore[assignment]
        tell: None  # type: ignore[assignment]
        write: None  # type: ignore[assignment]
        write_byte: None  # type: ignore[assignment]
        __contains__: None  # type: ignore[assignment]
        __delitem__: None  # type: ignore[assignment]
        __getitem__: None  # type: ignore[assignment]
        __iter__: None  # type: ignore[assignment]
        __setitem__: None  # type: ignore[assignment]

# The buffer protocol, len() and DLPack, which every window into a frame has.
@disjoint_base
class _Window(_Buffer):
    """The bytes of one frame. Counts the views, so that none outlives the frame unnoticed."""
    def __init__(self, *args: object, **kwargs: object) -> None: ...  # always TypeError
    def __enter__(self) -> Self: ...
    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None: ...
    def __len__(self) -> int: ...
    # Before Python 3.12 these are not there at run time, but they are what type checkers take for the buffer protocol.
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    @property
    def released(self) -> bool:
        """True once the frame has been sent, or given back: its block has been left and no view is alive."""

@final
class TxGuard(_Window):
    """Room for a message, to be written in place. `with memoryview(guard) as m: m[:] = ...`, np.frombuffer, DLPack."""

    actual_size: int
    type_id: int
    @property
    def correlation_id(self) -> int:
        """The id that the call will have, or that the reply answers; 0 on a plain bus."""

@final
class RxGuard(_Window):
    """A received message in place, read-only. Leaving its block frees the frame."""
    def release(self) -> None:
        """Do what leaving the block does: free the frame. Once is enough; a view that is alive is a BufferError."""
    def array(self) -> _NDArray:
        """The array that the message is, in place: NumPy's, read-only, its data aligned to 64 bytes."""
    @property
    def correlation_id(self) -> int:
        """Which call this is, or which it answers; 0 on a plain bus."""
    @property
    def actual_size(self) -> int:
        """Bytes of the message."""
    @property
    def type_id(self) -> int:
        """The message's type_id."""

@final
class RxView(_Window):
    """One message of an RxBatchGuard, in place, read-only, of use within the batch's block."""
    def __enter__(self) -> NoReturn: ...
    @property
    def actual_size(self) -> int:
        """Bytes of the message."""
    @property
    def type_id(self) -> int:
        """The message's type_id."""

@final
class RxBatchGuard:
    """A sequence of received messages in place: RxView objects, read-only. Leaving its block frees all of them."""
    def __init__(self, *args: object, **kwargs: object) -> None: ...  # always TypeError
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def __len__(self) -> int: ...
    def release(self) -> None:
        """Do what leaving the block does: free the frames. Once is enough; a view that is alive is a BufferError."""
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> RxView: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[RxView]: ...
    def __iter__(self) -> Iterator[RxView]: ...

@final
class ArrayPayload:
    """An array as a message: goes wherever bytes go, `send_many`, `call`, what a handler returns."""
    def __init__(self, array: _Array) -> None: ...
    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...

def as_array(buffer: ReadableBuffer) -> _NDArray:
    """The array that a message is, as a NumPy array over the same memory: of a guard, a memoryview of one, bytes."""

@final
class ArrayGuard(_Buffer):
    """An array in place, received or to be sent, for a `with` block, which gets it as a NumPy array."""
    def __init__(self, *args: object, **kwargs: object) -> None: ...  # always TypeError
    def array(self) -> _NDArray:
        """The array in place, NumPy's. What the block gets; it goes with the block."""
    def release(self) -> None:
        """Do what leaving the block does: free the frame, or send. Once is enough; a live view is a BufferError."""
    @property
    def released(self) -> bool:
        """True once the frame has been sent, or given back: the block has been left and no view is alive."""
    @property
    def shape(self) -> tuple[int, ...]:
        """How many items in each dimension."""
    @property
    def dtype(self) -> dtype[Any] | None:
        """NumPy's type of the items; None where NumPy is not installed, or has none such."""
    @property
    def type_id(self) -> int:
        """The message's type_id (of a call or a reply: its msg_type)."""
    @property
    def correlation_id(self) -> int:
        """The id of the call that this is, or that it answers; 0 on a plain bus."""
    def __enter__(self) -> _NDArray: ...  # type: ignore[override,unused-ignore]  # the guard itself without NumPy
    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...

class _RpcArrays:
    """What RpcBus has for arrays."""
    def call_array(self, array: _Array, msg_type: SupportsIndex, *, timeout: _Seconds | None = None) -> int:
        """Send a request that is an array, and return its id. As call, and Bus.send_array."""
    def call_array_zero_copy(
        self, shape: _Shape, dtype: DTypeLike, msg_type: SupportsIndex, *, timeout: _Seconds | None = None
    ) -> ArrayGuard:
        """Claim room for an array as a request, to be written in place: an ArrayGuard with its `correlation_id`."""
    @overload
    def wait_array(
        self, correlation_id: SupportsIndex, out: None = None, *, timeout: _Seconds | None = None
    ) -> _NDArray:
        """Wait for the reply to a call and return the array that it is, copied. As wait, and Bus.recv_array."""
    @overload
    def wait_array(self, correlation_id: SupportsIndex, out: _Out, *, timeout: _Seconds | None = None) -> _Out: ...
    def reply_array(
        self,
        correlation_id: SupportsIndex,
        array: _Array,
        msg_type: SupportsIndex = 0,
        *,
        timeout: _Seconds | None = None,
    ) -> None:
        """Answer a call with an array. As reply, and Bus.send_array. The call's own array is serve().array()."""
    def reply_array_zero_copy(
        self,
        correlation_id: SupportsIndex,
        shape: _Shape,
        dtype: DTypeLike,
        msg_type: SupportsIndex = 0,
        *,
        timeout: _Seconds | None = None,
    ) -> ArrayGuard:
        """Claim room for an array as the answer to a call, to be written in place: an ArrayGuard."""

@disjoint_base
class RpcBus(_RpcArrays):
    """Calls and replies between two processes. The listener serves, the connector calls. A context manager."""
    def __init__(self, *args: object, **kwargs: object) -> None: ...  # always TypeError
    @staticmethod
    def listen(
        socket_path: _Path,
        cap_fwd: SupportsIndex = 1048576,
        cap_rev: SupportsIndex = 1048576,
        *,
        timeout: _Seconds | None = None,
        mode: SupportsIndex = 0o600,
        max_large: SupportsIndex = 1073741824,
    ) -> RpcBus:
        """Create rings of `cap_fwd` bytes for calls and `cap_rev` for replies, and wait until a caller has
        connected.
        """
    @staticmethod
    def connect(
        socket_path: _Path,
        *,
        timeout: _Seconds | None = 0.0,
        uid: SupportsIndex | None = None,
        max_capacity: SupportsIndex | None = 1073741824,
        max_large: SupportsIndex = 1073741824,
    ) -> RpcBus:
        """Attach to the callee that listens at `socket_path`. As Bus.connect; max_capacity and max_large are for
        each ring.
        """
    def call(self, data: _Data, msg_type: SupportsIndex, *, timeout: _Seconds | None = None) -> int:
        """Send a request, the bytes of any buffer, and return its id, for wait()."""
    def call_zero_copy(
        self, size: SupportsIndex, msg_type: SupportsIndex, *, timeout: _Seconds | None = None
    ) -> TxGuard:
        """Claim room for a request, to be written in place: a TxGuard that knows its `correlation_id`."""
    def wait(self, correlation_id: SupportsIndex, *, timeout: _Seconds | None = None) -> RxGuard:
        """Wait for the reply to a call and return it in place, as an RxGuard for a `with` block."""
    def cancel(self, correlation_id: SupportsIndex) -> bool:
        """Give up a call: its reply will be dropped when it comes. False if there is nothing to give up."""
    def serve(self, *, timeout: _Seconds | None = None) -> RxGuard:
        """Wait for the next call and return it in place: an RxGuard with `correlation_id` and `type_id`, its
        msg_type.
        """
    def reply(
        self,
        correlation_id: SupportsIndex,
        data: _Data,
        msg_type: SupportsIndex = 0,
        *,
        timeout: _Seconds | None = None,
    ) -> None:
        """Answer a call, once, with the bytes of any buffer. In any order. ValueError if there is no such call to
        answer.
        """
    def reply_zero_copy(
        self,
        correlation_id: SupportsIndex,
        size: SupportsIndex,
        msg_type: SupportsIndex = 0,
        *,
        timeout: _Seconds | None = None,
    ) -> TxGuard:
        """Claim room for an answer of `size` bytes, to be written in place: a TxGuard."""
    def fileno(self) -> int:
        """As Bus.fileno, for both rings."""
    def arm(self, for_writing: object = False) -> bool:
        """As Bus.arm, for replies (a caller) or calls (a callee), or for room. Look for both if both are armed. A
        caller that waits for room waits for replies too, and takes them: its callee may need room for them.
        """
    def disarm(self) -> bool:
        """As Bus.disarm."""
    def set_polling_mode(self, pure_spin: bool) -> None:
        """As Bus.set_polling_mode, for both rings."""
    def set_numa_node(self, node: SupportsIndex) -> None:
        """As Bus.set_numa_node, for both rings."""
    def stats(self) -> dict[str, Any]:
        """Return counters: role, those of both rings, and, for a caller, calls in flight, replies set aside and
        dropped.
        """
    @property
    def max_request_size(self) -> int:
        """Largest request in bytes that goes through its ring."""
    @property
    def max_reply_size(self) -> int:
        """Largest reply in bytes that goes through its ring."""
    @property
    def max_large_size(self) -> int:
        """Largest request, or reply, in bytes at all: as Bus.max_large_size, of the smaller ring."""
    @property
    def peer_pid(self) -> int:
        """Process id of the peer; 0 if it lives in a PID namespace that we cannot see."""
    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
    def close(self) -> None:
        """Close both rings. Idempotent, never waits; allowed from any thread, and ends its waits with
        BusClosedError.
        """
    def abort(self) -> None:
        """Give up: as close(), but the peer gets PeerDeadError, whose `reason` is "aborted". So does leaving a
        `with` block by an exception.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

@disjoint_base
class _End:
    """What BusEnd and RpcEnd share."""
    def __init__(self, *args: object, **kwargs: object) -> None: ...  # always TypeError
    def _take(self) -> bool:
        """Make it this process's own. False: it is taken, closed, or in use here."""
    def _forget(self) -> None:
        """Let go of a copy that is not in use here."""
    def _check_spawning(self, name: str) -> None: ...
    def open(self, *, timeout: _Seconds | None = None) -> Any:  # said precisely by the two below
        """Wait until the process that has the other end opens it too, and return the bus that comes of both."""
    def try_open(self) -> Any:
        """Open it as far as that goes without waiting: the bus, or None while the other side is not there. Otherwise
        as open.
        """
    def fileno(self) -> int:
        """Return the descriptor that is this end: to pass on to a program that is started, which has from_fileno()."""
    @classmethod
    def from_fileno(cls, number: SupportsIndex) -> Self:
        """Return the end that has come here as an open descriptor, which is its own from now on."""
    @property
    def closed(self) -> bool:
        """True once it has been opened or closed, was found to be taken, and in a forked child of who takes it."""
    def close(self) -> None:
        """Let go of it. A copy that another process has got stays as it is. Idempotent; allowed from any thread, and
        ends an open() with BusClosedError. Without effect on the bus that came of it.
        """
    def __enter__(self) -> Any: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

@final
class BusEnd(_End):
    """One end of a Bus, made by pair() for another process, or this one: `with end as bus:`, or open()."""
    def open(self, *, timeout: _Seconds | None = None) -> Bus:
        """Wait until the process that has the other end opens it too, and return the bus that comes of both."""
    def try_open(self) -> Bus | None:
        """Open it as far as that goes without waiting: the bus, or None while the other side is not there. Otherwise
        as open.
        """
    def __enter__(self) -> Bus: ...

@final
class RpcEnd(_End):
    """One end of an RpcBus, made by rpc_pair(). Otherwise as BusEnd."""
    def open(self, *, timeout: _Seconds | None = None) -> RpcBus:
        """Wait until the process that has the other end opens it too, and return the bus that comes of both."""
    def try_open(self) -> RpcBus | None:
        """Open it as far as that goes without waiting: the bus, or None while the other side is not there. Otherwise
        as open.
        """
    def __enter__(self) -> RpcBus: ...

def pair(capacity: SupportsIndex, *, max_large: SupportsIndex = 1073741824) -> tuple[BusEnd, BusEnd]:
    """Make a ring of `capacity` bytes for two other processes, or for this one and another."""

def rpc_pair(
    cap_fwd: SupportsIndex = 1048576, cap_rev: SupportsIndex = 1048576, *, max_large: SupportsIndex = 1073741824
) -> tuple[RpcEnd, RpcEnd]:
    """Make rings of `cap_fwd` bytes for calls and `cap_rev` for replies, as pair() makes one."""

@disjoint_base
class _Listener:
    """What Listener and RpcListener share. One thread at a time accepts; close() may come from any."""
    def accept(self, *, timeout: _Seconds | None = None) -> Any:  # said precisely by the two below
        """Wait for the next peer. timeout: seconds; None waits for ever."""
    def try_accept(self) -> Any:
        """Return the next peer if one is there now, else None. Otherwise as accept."""
    def __next__(self) -> Any: ...
    def fileno(self) -> int:
        """Return a descriptor for select, poll and their like: readable when try_accept() may get further."""
    def arm(self, for_writing: object = False) -> bool:
        """As Bus.arm, before one waits for fileno(). False: try_accept() may get further now."""
    def disarm(self) -> bool:
        """As Bus.disarm; try_accept() is what silences a listener. True."""
    @property
    def path(self) -> _Path:
        """The socket path, as given."""
    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
    def close(self) -> None:
        """Stop listening and remove the socket file. What was accepted lives on. Idempotent; allowed from any
        thread, and ends an accept with BusClosedError.
        """
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@final
class Listener(_Listener):
    """Many buses at one path: `for bus in Listener(path, capacity)`, or accept(). A context manager."""
    def __init__(
        self,
        socket_path: _Path,
        capacity: SupportsIndex,
        *,
        mode: SupportsIndex = 0o600,
        max_large: SupportsIndex = 1073741824,
    ) -> None: ...
    def accept(self, *, timeout: _Seconds | None = None) -> Bus:
        """Wait for the next peer. timeout: seconds; None waits for ever."""
    def try_accept(self) -> Bus | None:
        """Return the next peer if one is there now, else None. Otherwise as accept."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> Bus: ...

@final
class RpcListener(_Listener):
    """Many callers at one path: each that connects, with RpcBus.connect, becomes an RpcBus that serves."""
    def __init__(
        self,
        socket_path: _Path,
        cap_fwd: SupportsIndex = 1048576,
        cap_rev: SupportsIndex = 1048576,
        *,
        mode: SupportsIndex = 0o600,
        max_large: SupportsIndex = 1073741824,
    ) -> None: ...
    def accept(self, *, timeout: _Seconds | None = None) -> RpcBus:
        """Wait for the next peer. timeout: seconds; None waits for ever."""
    def try_accept(self) -> RpcBus | None:
        """Return the next peer if one is there now, else None. Otherwise as accept."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> RpcBus: ...

@final
class WaitSet:
    """One thread waits for many: for messages on a Bus, for calls or replies on an RpcBus, for room on either, for
    the clients of a listener, and for whatever has a fileno(). RpcServer is made of it.
    """
    def add(self, member: _HasFileno) -> None:
        """Wait for a message on a Bus, a call or a reply on an RpcBus, a client of a listener, or until the fileno()
        of another object is readable. ValueError if it is a member already.
        """
    def remove(self, member: object) -> None:
        """Forget a member. No effect if it is none."""
    def await_message(self, bus: Bus | RpcBus) -> None:
        """From now on wait for a message on `bus`, a member; of an RpcBus, a call or a reply. So it is after add()."""
    def await_room(self, bus: Bus | RpcBus, size: SupportsIndex) -> None:
        """From now on wait for room for `size` bytes on `bus`, a member: a message, a call or a reply."""
    def wait(self, timeout: _Seconds | None = None) -> Any:
        """Return a member that may have what is waited for, or has ended; None after `timeout` seconds."""
    def close(self) -> None:
        """Forget all members and give the descriptor back. Idempotent. By the thread that waits, or once none does."""
    def __len__(self) -> int: ...

@disjoint_base
class _Loop:
    """A loop that the first Ctrl-C asks to end, once the call that is being served has been answered."""

    _stopping: bool
    def stop(self) -> None:
        """End serve_forever within 0.1 s, or the next one at once. From any thread, a handler, or a signal handler."""

class _Dispatching(_Loop):
    """What RpcDispatcher is made of: the frame of its loop."""
    def serve_forever(self, bus: RpcBus) -> None:
        """Serve until the caller closes or dies, stop() is called, or Ctrl-C."""

@disjoint_base
class _Serving(_Loop):
    """What RpcServer is made of: who is inside, and who closes."""

    _closing: bool
    _callers: set[RpcBus]
    dispatcher: Any
    _waiting: WaitSet
    _served: int
    def serve_forever(self) -> None:
        """Serve until stop(), close() or Ctrl-C."""
    def _answer(self, bus: RpcBus) -> Unfinished | None: ...
    def _drop(self, bus: RpcBus) -> None: ...
    def close(self) -> None:
        """Stop, close every caller's bus and the socket. Idempotent; from any thread."""
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

@overload
def call_and_wait(
    bus: RpcBus, data: _Data, msg_type: SupportsIndex, timeout: _Seconds | None, on_response: None = None
) -> Message:
    """Call and wait for the reply, for `timeout` seconds in all, and return it as a Message with its own bytes."""

@overload
def call_and_wait(
    bus: RpcBus,
    data: _Data,
    msg_type: SupportsIndex,
    timeout: _Seconds | None,
    on_response: Callable[[memoryview], Any] | None,
) -> Message | tuple[Any]:
    """Call and wait for the reply, for `timeout` seconds in all, and return it as a Message with its own bytes."""

def peer_is_gone(bus: RpcBus) -> bool:
    """Is it known that a call would find nobody? Of a caller; does not wait. True of a closed bus."""

def last_call(bus: RpcBus) -> int:
    """Return the id of the last call that was sent; 0 before the first."""

@final
class Unfinished:
    """A served call with something unusual left to do, and with what."""
    @property
    def guard(self) -> RxGuard: ...
    @property
    def request(self) -> memoryview: ...
    @property
    def failure(self) -> BaseException | None: ...
    @property
    def answer(self) -> _Data: ...
    @property
    def answered(self) -> bool: ...

def answer_one(
    bus: RpcBus, endpoints: dict[int, Any], timeout: _Seconds | None, wait_for_room: bool
) -> Unfinished | None:
    """Serve one call: pass it to the handler of its endpoint, send the answer, free the request."""

# ---- what tachyon.aio is made of ----

@final
class GivingUp:
    """How one thread asks another to give up what it waits for: within 50 ms it raises BusClosedError then."""
    def ask(self) -> None:
        """Ask. From any thread, at any time."""
    def run(self, call: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Return call(*args, **kwargs), a listen or connect, which can be asked meanwhile."""

@final
class Pass:
    """`await Pass()` lets the loop have one pass."""
    def __await__(self) -> Generator[None]: ...

@disjoint_base
class _Turn:
    """How long somebody may go on before the loop has its turn: some 100 µs, and a few messages."""

    _closing: bool
    def _begin(self) -> None:
        """Begin a turn: the loop has just had its own."""
    def _is_over(self) -> bool:
        """Is it the loop's turn?"""
    async def _rest(self) -> None: ...

@disjoint_base
class _AsyncBus(_Turn):
    """The quick half of tachyon.aio.Bus: what needs no wait."""

    _receiver: Any
    _line: list[Any]
    @property
    def bus(self) -> Bus: ...
    def __init__(self, bus: Bus) -> None: ...
    def _check_alone(self) -> None:
        """May a task wait for a message now?"""
    def send(
        self, data: _Data, type_id: SupportsIndex = 0, *, timeout: _Seconds | None = None
    ) -> Coroutine[Any, Any, None]:
        """As Bus.send. Who is cancelled has sent nothing. Several tasks may send: in the order in which they came."""
    def recv(self, *, timeout: _Seconds | None = None) -> Coroutine[Any, Any, Message]:
        """As Bus.recv. Who is cancelled has taken nothing. One task at a time: BusBusyError."""
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[Any, Any, Message]: ...

@disjoint_base
class _Step:
    """A coroutine: done at once, or by another one that waits."""
    def __await__(self) -> Generator[Any, None, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any) -> Any:
        """As every coroutine has it."""
    def throw(self, *raised: Any) -> Any:
        """As every coroutine has it."""
    def close(self) -> None:
        """As every coroutine has it."""

@final
class _Sending(_Step):
    """What send() returns."""

@final
class _Taking(_Step):
    """What recv() and __anext__ return."""

def take_replies(
    bus: RpcBus, wanted: dict[int, Future[Message | None]], watched: dict[int, Future[Message | None]], most: int
) -> int:
    """Take up to `most` replies of a caller. Returns how many; raises how the callee ended once there are none."""

def pack(bus: Bus | RpcBus, head: bytes, limit: int, timeout: _Seconds | None) -> tuple[bytes, int] | None:
    """Take what the ring holds, up to `limit` bytes of records, and return it behind `head` and its count."""

def unpack(bus: Bus | RpcBus, sample: bytes, offset: int, count: int, timeout: _Seconds | None) -> tuple[int, int]:
    """Send `count` records of a sample, from `offset` on; wait up to `timeout` seconds for room."""

def check_peer(bus: Bus | RpcBus) -> None:
    """Raise as send would if the other end of what unpack() writes to is gone. Never waits."""
