"""tachyon: messages between two processes of one machine, at memory speed.

One side listens, the other connects; then `send` here and `for msg in bus` there. See the README for the rest.
"""

from __future__ import annotations

from pathlib import Path

from tachyon._client import RpcClient
from tachyon._dispatcher import RpcDispatcher
from tachyon._errors import (
    ArrayError,
    BusBusyError,
    BusClosedError,
    BusEmptyError,
    BusFullError,
    CapacityError,
    CodecError,
    HandshakeError,
    MessageTooLargeError,
    PeerClosedError,
    PeerDeadError,
    RpcError,
    TachyonError,
    TachyonTimeoutError,
)
from tachyon._ids import make_type_id, msg_type, route_id
from tachyon._objects import Codec, decode_obj, encode_obj
from tachyon._pipe import PipeEnd, pipe, take
from tachyon._rpc import MSG_TYPE_ERROR, RpcEndpoint, TypedEndpoint, tachyon_rpc
from tachyon._rpc import _decode_error as _decode_error
from tachyon._server import RpcServer
from tachyon._tachyon import (
    MAX_CAPACITY,
    MIN_CAPACITY,
    ArrayGuard,
    ArrayPayload,
    Bus,
    BusEnd,
    Listener,
    Message,
    RpcBus,
    RpcEnd,
    RpcListener,
    RxBatchGuard,
    RxGuard,
    RxView,
    TxGuard,
    WaitSet,
    __version__,
    as_array,
    pair,
    rpc_pair,
)

__all__ = [
    "MAX_CAPACITY",
    "MIN_CAPACITY",
    "MSG_TYPE_ERROR",
    "ArrayError",
    "ArrayGuard",
    "ArrayPayload",
    "Bus",
    "BusBusyError",
    "BusClosedError",
    "BusEmptyError",
    "BusEnd",
    "BusFullError",
    "CapacityError",
    "Codec",
    "CodecError",
    "HandshakeError",
    "Listener",
    "Message",
    "MessageTooLargeError",
    "PeerClosedError",
    "PeerDeadError",
    "PipeEnd",
    "RpcBus",
    "RpcClient",
    "RpcDispatcher",
    "RpcEnd",
    "RpcEndpoint",
    "RpcError",
    "RpcListener",
    "RpcServer",
    "RxBatchGuard",
    "RxGuard",
    "RxView",
    "TachyonError",
    "TachyonTimeoutError",
    "TxGuard",
    "TypedEndpoint",
    "WaitSet",
    "__version__",
    "as_array",
    "decode_obj",
    "encode_obj",
    "get_include",
    "get_libraries",
    "get_library_dirs",
    "make_type_id",
    "msg_type",
    "pair",
    "pipe",
    "route_id",
    "rpc_connect",
    "rpc_listen",
    "rpc_pair",
    "tachyon_rpc",
    "take",
]

rpc_listen = RpcBus.listen
rpc_connect = RpcBus.connect


def get_include() -> str:
    """Return the folder to pass to a C++ compiler for `#include "tachyon/bus.hpp"`."""
    return str(Path(__file__).parent / "include")


def get_libraries() -> list[str]:
    """Return the names of the libraries to link to; static, so nothing of them is needed at run time."""
    return ["tachyon"]


def get_library_dirs() -> list[str]:
    """Return the folders to find them in. FileNotFoundError in a source tree that has not been built."""
    folder = Path(__file__).parent / "lib"
    if not (folder / "libtachyon.a").is_file():
        raise FileNotFoundError(f"{folder / 'libtachyon.a'} has not been built; in a source tree: pip install -e .")
    return [str(folder)]
