"""What the bridge asks of what connects two machines. It may lose, repeat and reorder samples, but not change them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

Undo: TypeAlias = Callable[[], None]  # idempotent; what is under way may still come
Put: TypeAlias = Callable[[bytes], None]  # may wait while the link is busy, but not for one that is not there


class Link(Protocol):
    """A link. Keys are words with slashes between them; for subscribe and watch the last one may be `*`, any one word.

    Callbacks run in threads of the link's, for each key one at a time, in the order of sending as far as the link
    keeps it. They must not wait for another one.
    """

    def open(self) -> bool:
        """Try, for a second at most, until all else may be used. False: not yet. From any thread, any time."""

    def publish(self, key: str, *, urgent: bool = False) -> tuple[Put, Undo]:
        """Return what sends samples to a key. Urgent ones may overtake others. It raises OSError once it is closed."""

    def subscribe(self, key: str, on_sample: Callable[[str, bytes], None]) -> Undo:
        """Have each sample that is sent to a key passed to `on_sample`, with the key."""

    def announce(self, key: str) -> Undo:
        """Say that somebody is here, until undone or gone."""

    def watch(self, key: str, on_presence: Callable[[str, bool], None]) -> Undo:
        """Have it told who is here, now and from now on: True for one that came, False for one that went."""

    def close(self) -> None:
        """Let go of everything. Idempotent."""
