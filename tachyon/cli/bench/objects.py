"""A dict of 1,000 entries, of floats or of records: as an object on the bus, and as programs send it today."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tachyon.cli.bench.ours import Plain
from tachyon.cli.bench.peers import Queue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tachyon.cli.bench.pairs import Channel, Send

SIZE = 17 << 10  # bytes of the first, about, however it is encoded


@dataclass
class Trade:
    """A record."""

    symbol: str
    price: float
    quantity: int


FLOATS = {f"key {i}": i / 7 for i in range(1000)}
RECORDS = {f"key {i}": Trade("ABC", i / 7, i) for i in range(1000)}


class FloatsByBus(Plain):
    """`send_obj` and `objects`, by msgspec."""

    name = "bus-floats"
    title = "tachyon: send_obj, objects of 1,000 floats (msgspec)"
    entries: Any = FLOATS
    type: Any = dict[str, float]

    @staticmethod
    def absent() -> str:
        """Where msgspec is not installed."""
        return "" if find_spec("msgspec") else "not installed: pip install msgspec"

    def open_sender(self) -> Send:
        """The same dict each time."""
        send, entries = self.listen().send_obj, self.entries
        return lambda _: send(entries)

    def open_receiver(self) -> Iterable[Any]:
        """Dicts."""
        return self.connect().objects(type=self.type)

    @staticmethod
    def data(message: Any) -> Any:
        """Whatever: the sender has its own."""
        return message


class FloatsByQueue(Queue):
    """`multiprocessing.Queue`, which pickles."""

    name = "queue-floats"
    title = "multiprocessing.Queue, put and get of 1,000 floats"
    entries: Any = FLOATS

    def open_sender(self) -> Send:
        """The same dict each time."""
        put, entries = self.queue.put, self.entries
        return lambda _: put(entries)

    data = staticmethod(FloatsByBus.data)


class RecordsByBus(FloatsByBus):
    """The same of dataclasses."""

    name = "bus-records"
    title = "tachyon: send_obj, objects of 1,000 dataclasses (msgspec)"
    entries = RECORDS
    type = dict[str, Trade]


class RecordsByQueue(FloatsByQueue):
    """The same of dataclasses."""

    name = "queue-records"
    title = "multiprocessing.Queue, put and get of 1,000 dataclasses"
    entries = RECORDS


OBJECTS: list[type[Channel]] = [FloatsByBus, FloatsByQueue, RecordsByBus, RecordsByQueue]
