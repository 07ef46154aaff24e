"""What an item of an array is: DLPack's numbers, or a text for what has none, and the dtypes of NumPy and ml_dtypes.

Both are imported when they are needed, and not before: the package works without them.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from types import ModuleType
from typing import Any, NamedTuple

DESCRIBED = 255  # the code of what a text describes

# DLPack's code and bits of what NumPy and ml_dtypes call so.
_CODES = {
    **{f"int{bits}": (0, bits) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (1, bits) for bits in (8, 16, 32, 64)},
    **{f"float{bits}": (2, bits) for bits in (16, 32, 64, 128)},  # 128: long double, as wide as it is here
    **{f"complex{bits}": (5, bits) for bits in (64, 128)},
    "bool": (6, 8),
}
_ML_CODES = {
    "bfloat16": (4, 16),
    "float8_e3m4": (7, 8),
    "float8_e4m3": (8, 8),
    "float8_e4m3b11fnuz": (9, 8),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
    "float8_e8m0fnu": (14, 8),
}
_NAMES = {numbers: name for name, numbers in (_CODES | _ML_CODES).items()}

_PLAIN = re.compile(r"[<>|][biufcmMSUV]\d{1,9}(\[[\w/]{1,20}\])?")  # NumPy's short names; no objects
_MOST_BYTES = 1 << 16  # of a description
_DEEPEST = 32  # structures within structures


class Layout(NamedTuple):
    """One item, as a header says it."""

    code: int
    bits: int  # 0 if it is described
    swapped: bool  # in the other byte order than this machine's
    item_bytes: int
    description: bytes  # empty, or a text


def numpy() -> ModuleType:
    """Return NumPy. ModuleNotFoundError, which says what else there is, without it."""
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this takes NumPy, which is not installed: pip install numpy. Without it recv_array_zero_copy gives a "
            "guard with shape, memoryview and DLPack (torch.from_dlpack), and plain buffers and tensors can be sent",
            name=error.name,
        ) from error
    return np


def _ml_dtype(name: str) -> Any:
    try:
        import ml_dtypes  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"NumPy has no {name} by itself: pip install ml_dtypes. Without it recv_array_zero_copy gives a guard for "
            "DLPack (torch.from_dlpack)",
            name=error.name,
        ) from error
    if not hasattr(ml_dtypes, name):
        raise LookupError(f"this version of ml_dtypes has no {name}")
    return numpy().dtype(getattr(ml_dtypes, name))


# ---- from a header ---------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def dtype_of(code: int, bits: int, swapped: bool) -> Any:
    """Return the dtype that DLPack has numbers for. LookupError if NumPy has none such."""
    name = name_of(code, bits)
    if name in _ML_CODES and not swapped:
        return _ml_dtype(name)
    if name not in _CODES or (swapped and bits == 8):
        raise LookupError(f"NumPy has no type for {'byte-swapped ' if swapped else ''}{name}; take it by DLPack")
    np = numpy()
    if name == "float128" and not hasattr(np, name):
        raise LookupError("NumPy has no float128 on this machine; take it by DLPack")
    dtype = np.dtype(name)
    return dtype.newbyteorder("S") if swapped else dtype


def name_of(code: int, bits: int) -> str:
    """Return what NumPy or ml_dtypes call it, or the numbers."""
    return _NAMES.get((code, bits), f"DLPack type {code} of {bits} bits")


@functools.lru_cache(maxsize=64)
def dtype_described(description: bytes, item_bytes: int) -> Any:
    """Return the dtype that a peer describes. ValueError if that is no description of ours."""
    np = numpy()
    try:
        dtype = _parsed(json.loads(description.decode("ascii")), 0)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever json, or NumPy, makes of it
        raise ValueError(f"its type is described by {_shown(description)}: {error}") from error
    if dtype.hasobject or dtype.subdtype is not None or dtype.itemsize != item_bytes:
        raise ValueError(f"its type is described by {_shown(description)}, which is no type of {item_bytes} bytes")
    assert isinstance(dtype, np.dtype)
    return dtype


def _parsed(said: Any, depth: int) -> Any:
    np = numpy()
    if depth > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} structures within each other")
    if isinstance(said, str):
        if said in _ML_CODES:
            return _ml_dtype(said)
        if not _PLAIN.fullmatch(said):
            raise ValueError("not a name of a type")
        return np.dtype(said)
    if isinstance(said, list):
        base, shape = said
        return np.dtype((_parsed(base, depth + 1), tuple(_numbers(shape))))
    fields = {
        "names": _texts(said["names"]),
        "formats": [_parsed(each, depth + 1) for each in said["formats"]],
        "offsets": _numbers(said["offsets"]),
        "itemsize": _numbers([said["itemsize"]])[0],
    }
    if "titles" in said:
        fields["titles"] = [None if each is None else _texts([each])[0] for each in said["titles"]]
    return np.dtype(fields)


def _numbers(said: Any) -> list[int]:
    if not isinstance(said, list) or not all(type(each) is int and 0 <= each < 1 << 31 for each in said):
        raise ValueError("a number that cannot be")
    return said


def _texts(said: Any) -> list[str]:
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise ValueError("a name that is none")
    return said


def _shown(description: bytes) -> str:
    return repr(description if len(description) <= 100 else description[:97] + b"...")


# ---- to a header -----------------------------------------------------------------------------------------------------


def layout_of(dtype: Any) -> Layout:
    """Return how a dtype is written: NumPy's or ml_dtypes', or the name of one. TypeError for what cannot be sent."""
    if isinstance(dtype, str) and dtype in _NAMES.values():  # these go without NumPy too
        code, bits = (_CODES | _ML_CODES)[dtype]
        return Layout(code, bits, False, bits // 8, b"")
    return _layout_of(numpy().dtype(dtype))


@functools.lru_cache(maxsize=64)
def _layout_of(dtype: Any) -> Layout:
    if dtype.hasobject:
        raise TypeError(
            f"dtype {dtype} has Python objects in it: their addresses mean nothing in another process; convert them to "
            "plain values, or serialize them"
        )
    if dtype.itemsize == 0:
        raise TypeError(f"dtype {dtype} has items of 0 bytes, of which nothing can be sent")
    numbers = (_ML_CODES if _of_ml_dtypes(dtype) else _CODES if dtype.kind in "biufc" else {}).get(dtype.name)
    if numbers is not None:
        return Layout(*numbers, dtype.byteorder == _OTHER, dtype.itemsize, b"")
    text = json.dumps(_description(dtype), separators=(",", ":")).encode("ascii")
    if len(text) > _MOST_BYTES:
        raise TypeError(f"a dtype with so many fields that it takes more than {_MOST_BYTES} bytes to describe it")
    if dtype_described(text, dtype.itemsize) != dtype:
        raise TypeError(f"dtype {dtype} would come out as another one; convert it first")
    return Layout(DESCRIBED, 0, False, dtype.itemsize, text)


_OTHER = ">" if sys.byteorder == "little" else "<"


def _of_ml_dtypes(dtype: Any) -> bool:
    return str(dtype.type.__module__).partition(".")[0] == "ml_dtypes"


def _description(dtype: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise TypeError(f"a dtype of more than {_DEEPEST} structures within each other cannot be sent; flatten it")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_description(base, depth + 1), list(shape)]
    if dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        said: dict[str, Any] = {
            "names": list(dtype.names),
            "formats": [_description(field[0], depth + 1) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
        titles = [field[2] if len(field) > 2 else None for field in fields]
        if any(title is not None for title in titles):
            if not all(title is None or isinstance(title, str) for title in titles):
                raise TypeError(f"dtype {dtype} has a title that is no text")
            said["titles"] = titles
        return said
    if _of_ml_dtypes(dtype) and dtype.name in _ML_CODES:
        return dtype.name
    if not _PLAIN.fullmatch(dtype.str) or _of_ml_dtypes(dtype):
        raise TypeError(f"arrays of dtype {dtype} cannot be sent; convert them, or send their bytes")
    return dtype.str


def exported(array: Any) -> tuple[Layout, Any]:
    """Return the layout of an array that has no buffer of its own type, and one of the same bytes that has."""
    np = numpy()
    try:
        plain = np.asarray(array)
    except ValueError as error:  # a format that NumPy does not know, such as that of ctypes' c_wchar
        raise TypeError(
            f"the items of this {type(array).__name__} cannot be sent: {error}; make a NumPy array of them first"
        ) from error
    layout = layout_of(plain.dtype)
    return layout, plain.view(np.dtype((np.void, layout.item_bytes)))


_FORMATS = {
    **{(0, 8 << i): letter for i, letter in enumerate("bhiq")},
    **{(1, 8 << i): letter for i, letter in enumerate("BHIQ")},
    **{(2, 16 << i): letter for i, letter in enumerate("efdg")},
    **{(5, 64): "Zf", (5, 128): "Zd", (6, 8): "?"},
}


def format_of(code: int, bits: int, swapped: bool) -> bytes | None:
    """Return the format of a buffer of items that DLPack has numbers for; None where there is none, as of bfloat16."""
    letter = _FORMATS.get((code, bits))
    return None if letter is None else (_OTHER + letter if swapped else letter).encode()


def buffer_format(dtype: Any) -> bytes | None:
    """Return the format of a buffer of such items; None where there is none, as of a date."""
    try:
        return memoryview(numpy().empty(0, dtype)).format.encode()
    except (ValueError, BufferError):
        return None
