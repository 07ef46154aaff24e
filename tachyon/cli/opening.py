"""A bus that is somebody's from the moment it is open."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tachyon import Bus, RpcBus

if TYPE_CHECKING:
    from collections.abc import Callable

Either = TypeVar("Either", Bus, RpcBus)


class Opening:
    """`with Opening() as opening: bus = opening.take(Bus.connect, path)` aborts the bus if the block fails.

    In `with Bus.connect(path) as bus` a signal may strike when the bus is open and the block not yet entered. It would
    be left to its destructor then, which closes it, and to the other side a close is the end of a whole stream.
    """

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._opened: list[Bus | RpcBus] = []

    def take(self, open_it: Callable[..., Either], path: str, **options: Any) -> Either:
        """Open a bus and own it."""
        # One step for the interpreter: no signal handler runs between the opening and the owning.
        self._opened.extend(map(partial(open_it, **options), [path]))
        return self._opened[-1]  # type: ignore[return-value]

    def __enter__(self) -> Opening:
        """Nothing to do."""
        return self

    def __exit__(self, exc_type: object, *_: object) -> None:
        """Without effect on a bus that its own block has closed."""
        for bus in self._opened:
            bus.abort()
