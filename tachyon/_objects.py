"""Objects as messages: codecs, and the header that names the codec in each message. No bus is known here.

The header, 8 bytes and the name, filled up with zeros to a multiple of 8; numbers are little-endian:

    0  2  0xb7, "o"
    2  1  version of this header: 1
    3  1  flags that a reader has to know: none yet, 0
    4  2  bytes before the encoded object; between the name and there a later version may put what this one skips
    6  1  bytes of the name
    7     the codec's name, UTF-8

What follows is the codec's own, but for pickle: see _Pickle.
"""

from __future__ import annotations

import functools
import pickle
import struct
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from tachyon._errors import CodecError

_HEAD = struct.Struct("<2sBBHB")
_MAGIC, _VERSION = b"\xb7o", 1

Encode = Callable[[Any], "bytes | bytearray | memoryview | str"]
Decode = Callable[[bytes], Any]


class Codec:
    """How objects become bytes and come back. Immutable; of use from any thread if its functions are.

    encode(o) returns bytes (or a bytearray, a memoryview, a str, which is sent as UTF-8); decode(data) gets bytes and
    returns an object. name: stands in each message, and the other side has to read with a codec of the same name; it
    is that of `encode` (such as "json.dumps") unless told, and has 1 … 255 bytes in UTF-8.
    for_type(t): returns a `decode` that checks, or makes, what `type=t` asks for; remembered for each type.
    """

    __slots__ = ("_for_type", "_header", "decode", "encode", "name")

    def __init__(
        self,
        encode: Encode,
        decode: Decode,
        *,
        name: str | None = None,
        for_type: Callable[[Any], Decode] | None = None,
    ) -> None:
        """Check the functions and the name."""
        for what, function in (("encode", encode), ("decode", decode), ("for_type", for_type)):
            if not callable(function) and not (what == "for_type" and function is None):
                raise TypeError(f"{what} must be callable, not {type(function).__name__}")
        if name is None:
            name = _name_of(encode)
        elif not isinstance(name, str):
            raise TypeError(f"a codec's name must be a str, not {type(name).__name__}")
        raw = name.encode()
        if not 1 <= len(raw) <= 255:
            raise ValueError(f"a codec's name has 1 … 255 bytes in UTF-8, not {len(raw)}: {name[:40]!r}")
        self.encode = encode
        self.decode = decode
        self.name = name
        self._for_type = for_type and functools.lru_cache(256)(for_type)
        size = (_HEAD.size + len(raw) + 7) & ~7
        self._header = (_HEAD.pack(_MAGIC, _VERSION, 0, size, len(raw)) + raw).ljust(size, b"\0")

    def __repr__(self) -> str:
        """Name it."""
        return f"<tachyon.Codec {self.name!r}>"

    @property
    def typed(self) -> bool:
        """Does it know of types?"""
        return self._for_type is not None

    def decoder(self, type: Any = None) -> Decode:
        """Return what decodes to `type`; None: anything. TypeError if this codec knows of no types."""
        if type is None or type is object or type is Any:
            return self.decode
        if self._for_type is None:
            raise TypeError(f"codec {self.name!r} takes no type=; make one whose decode knows it, or pass for_type=")
        return self._for_type(type)

    def pack(self, o: Any) -> bytes | Pieces:
        """Return the whole message."""
        data: Any = self.encode(o)
        if type(data) is not bytes:
            if isinstance(data, str):
                data = data.encode()
            elif not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"encode of codec {self.name!r} must return bytes, not {type(data).__name__}")
        return self._header + data  # type: ignore[no-any-return]

    def pack_whole(self, o: Any) -> bytes:
        """Return the whole message, copied together."""
        packed = self.pack(o)
        return packed if isinstance(packed, bytes) else packed.joined()

    def unpack(self, data: bytes, decode: Decode) -> Any:
        """Return the object of a whole message. Raises CodecError."""
        at = len(self._header) if data.startswith(self._header) else self._find(data)
        try:
            return decode(data[at:])
        except MemoryError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> CodecError:
        return CodecError(
            f"codec {self.name!r} cannot decode it: {type(error).__name__}: {error}", self.name, self.name
        )

    def _find(self, data: bytes | memoryview) -> int:
        """Return where the object begins, in a message whose header is not exactly ours."""
        size, found = read_header(data, self.name)
        if found == self.name:
            return size
        if found == _Pickle.NAME:
            raise CodecError(
                f"this message was written with pickle, and codec {self.name!r} reads here; unpickling runs whatever "
                "code the sender put there: pass allow_pickle=True if you trust it like yourself",
                self.name,
                found,
            )
        raise CodecError(
            f"this message was written by codec {found!r}, and {self.name!r} reads here: use one on both sides",
            self.name,
            found,
        )


AnyCodec: TypeAlias = Codec | Literal["msgpack"] | tuple[Encode, Decode]


def _name_of(encode: Encode) -> str:
    name = getattr(encode, "__qualname__", None) or type(encode).__qualname__
    module = getattr(encode, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else str(name)


def read_header(data: bytes | memoryview, codec: str) -> tuple[int, str]:
    """Return where the object of a message begins, and the name of its codec. CodecError if it has no such header."""

    def refuse(why: str) -> CodecError:
        return CodecError(f"this message of {len(data)} bytes {why}", codec, None)

    if len(data) < _HEAD.size or bytes(data[:2]) != _MAGIC:
        raise refuse("is no object: it was not sent by send_obj; recv() takes it as it is")
    _, version, flags, size, length = _HEAD.unpack(data[: _HEAD.size])
    if version != _VERSION or flags:
        raise refuse(f"has an object header of version {version}, flags {flags}; version {_VERSION} is read here")
    if not _HEAD.size + length <= size <= len(data):
        raise refuse(f"has a damaged object header: {length} bytes of name in {size} bytes of header")
    return size, bytes(data[_HEAD.size : _HEAD.size + length]).decode("utf-8", "replace")


# ---- pickle ----------------------------------------------------------------------------------------------------------

_BODY = struct.Struct("<QQ")  # bytes of the pickle, buffers beside it; then the bytes of each, as "Q"


def _aligned(offset: int) -> int:
    """The next offset in a message that lies on 64 bytes in memory: a message begins 16 bytes into a line."""
    return offset + (48 - offset) % 64


class Pieces:
    """A message whose buffers still lie with their owners, to be copied once into the room for it."""

    def __init__(self, head: bytes, buffers: list[memoryview]) -> None:
        """Say where each goes."""
        self.parts: list[tuple[int, bytes | memoryview]] = [(0, head)]
        end = len(head)
        for buffer in buffers:
            start = _aligned(end)
            self.parts += [(end, bytes(start - end)), (start, buffer)]  # what lay in the gap is nobody's business
            end = start + buffer.nbytes
        self.size = end

    def joined(self) -> bytes:
        """Copy all of it."""
        return b"".join(part for _, part in self.parts)


class _Pickle(Codec):
    """Pickle protocol 5. After the header: the sizes, the pickle, and each buffer on 64 bytes of memory."""

    __slots__ = ()
    NAME = "pickle"

    def __init__(self) -> None:
        super().__init__(pickle.dumps, pickle.loads, name=self.NAME)

    def pack(self, o: Any) -> bytes | Pieces:
        owners: list[pickle.PickleBuffer] = []
        data = pickle.dumps(o, 5, buffer_callback=owners.append)
        buffers = [owner.raw() for owner in owners]
        sizes = struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
        head = b"".join((self._header, _BODY.pack(len(data), len(buffers)), sizes, data))
        return Pieces(head, buffers) if buffers else head

    def unpack(self, data: bytes | memoryview, decode: Decode) -> Any:
        """Memory that may be written to becomes that of the buffers, without a copy."""
        view = memoryview(data)
        at = self._find(view)
        size, buffers, at = self._layout(view, at)
        try:
            return pickle.loads(view[at : at + size], buffers=buffers)
        except MemoryError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _layout(self, view: memoryview, at: int) -> tuple[int, list[memoryview], int]:
        """Return the size of the pickle, the buffers, and where the pickle begins."""
        damaged = CodecError(f"this message of {len(view)} bytes has a damaged pickle header", self.name, self.name)
        start = at + _BODY.size
        if start > len(view):
            raise damaged
        size, count = _BODY.unpack(view[at:start])
        if count > (len(view) - start) // 8:
            raise damaged
        sizes = struct.unpack_from(f"<{count}Q", view, start)
        start += count * 8
        end = start + size
        if end > len(view):
            raise damaged
        buffers: list[memoryview] = []
        for length in sizes:
            first = _aligned(end)
            end = first + length
            if end > len(view):
                raise damaged
            buffer = view[first:end]
            buffers.append(memoryview(bytearray(buffer)) if buffer.readonly else buffer)
        return size, buffers, start


_PICKLE = _Pickle()


# ---- which codec -----------------------------------------------------------------------------------------------------


@functools.cache
def _msgpack() -> Codec:
    try:
        from msgspec import msgpack
    except ImportError:
        raise ImportError(
            "objects go by msgspec, which is not installed: pip install 'tachyon-ipc[objects]'; "
            "or pass codec=(encode, decode)"
        ) from None
    return Codec(
        msgpack.Encoder().encode,
        msgpack.Decoder().decode,
        name="msgpack",
        for_type=lambda type: msgpack.Decoder(type).decode,
    )


def codec_of(codec: AnyCodec | None = None, allow_pickle: object = False) -> Codec:
    """Return the codec that is meant: msgspec's MessagePack unless told otherwise."""
    if allow_pickle:
        if codec is not None:
            raise TypeError("allow_pickle=True makes pickle the codec: pass one of the two")
        return _PICKLE
    if codec is None or codec == "msgpack":
        return _msgpack()
    if isinstance(codec, Codec):
        return codec
    if isinstance(codec, tuple) and len(codec) == 2:
        return Codec(*codec)
    if codec == _Pickle.NAME:
        raise ValueError("unpickling runs whatever code the sender puts there: ask for it by allow_pickle=True")
    raise TypeError(f'codec must be a Codec, a pair (encode, decode) or "msgpack", not {codec!r}')


def encode_obj(o: Any, *, codec: AnyCodec | None = None, allow_pickle: bool = False) -> bytes:
    """Return an object as the bytes that Bus.send_obj sends. For send_many, a call, another transport.

    Raises what the codec raises for an object that it cannot encode; ImportError without msgspec and codec.
    """
    return codec_of(codec, allow_pickle).pack_whole(o)


def decode_obj(data: Any, *, type: Any = None, codec: AnyCodec | None = None, allow_pickle: bool = False) -> Any:
    """Return the object in a Message, or in the bytes of any buffer, which are copied first unless they are `bytes`.

    type, codec, allow_pickle: as Bus.recv_obj. Raises CodecError.
    """
    chosen = codec_of(codec, allow_pickle)
    decode = chosen.decoder(type)
    raw = getattr(data, "data", data)  # a Message's
    return chosen.unpack(raw if isinstance(raw, bytes) else bytes(memoryview(raw)), decode)
