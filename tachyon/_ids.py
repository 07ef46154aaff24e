"""How a 32-bit type_id is put together: route_id in the high 16 bits, msg_type in the low 16."""

from __future__ import annotations

from operator import index


def _bounded(name: str, value: int, bits: int) -> int:
    number = index(value)
    if not 0 <= number < 1 << bits:
        raise OverflowError(f"{name} must be between 0 and {(1 << bits) - 1}, not {number}")
    return number


def make_type_id(route_id: int, msg_type: int) -> int:
    """Return route_id << 16 | msg_type. Both are 0 … 65535 (OverflowError); route_id >= 1 is reserved for RPC."""
    return _bounded("route_id", route_id, 16) << 16 | _bounded("msg_type", msg_type, 16)


def route_id(type_id: int) -> int:
    """Return the high 16 bits of a type_id (0 … 2**32 - 1, else OverflowError)."""
    return _bounded("type_id", type_id, 32) >> 16


def msg_type(type_id: int) -> int:
    """Return the low 16 bits of a type_id (0 … 2**32 - 1, else OverflowError)."""
    return _bounded("type_id", type_id, 32) & 0xFFFF
