"""What a gateway was asked for: an export or an import of a Bus, or of an RpcBus with any number of callers."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from tachyon._errors import BusClosedError, HandshakeError, TachyonTimeoutError
from tachyon._tachyon import Bus, Listener, RpcBus, RpcListener
from tachyon.bridge._channel import Channel, Outcome, Terms
from tachyon.bridge._samples import BadSample, How, Kind, Sample, decode, encode, reason
from tachyon.bridge._session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tachyon.bridge._link import Link, Undo

log = logging.getLogger("tachyon")

PREFIX = "tachyon/1"
MOST_CALLERS = 1024
LOOK = 0.1  # seconds between two looks at whether a route has been stopped
FIRST_ATTEMPT = 1.0  # seconds to connect to a server that exports calls


def new_epoch() -> int:
    """Return a number that no other end has, or ever had."""
    return secrets.randbits(63) + 1


class Route:
    """One name, here. Ends by itself where the bus does; stop() and kill() end it. Threads: any."""

    def __init__(self, link: Link, name: str, path: str, terms: Terms) -> None:
        """start() begins."""
        self.link = link
        self.name = name
        self.path = path
        self.terms = terms
        self.state = "starting"
        self.outcome: Outcome | None = None  # of its last session
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self._stopping = threading.Event()
        self._sessions: dict[int, Session] = {}
        self._lock = threading.Lock()
        self._past: dict[str, int] = {}
        self._undo: list[Undo] = []
        self._warned = False
        self._thread = threading.Thread(target=self._main, name=f"tachyon bridge {name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End in good order, see Session.stop."""
        self._stopping.set()
        for session in self._now():
            session.stop(self.terms.grace)

    def kill(self) -> None:
        """End now."""
        self._stopping.set()
        for session in self._now():
            session.kill()

    def stats(self) -> dict[str, int]:
        """Return the counters of all its sessions together, and how many there are."""
        with self._lock:
            total = dict(self._past)
            now = list(self._sessions.values())
        for session in now:
            for key, value in session.stats().items():
                total[key] = total.get(key, 0) + value
        return {"sessions": len(now), **total}

    # ---- inside ----

    def _now(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    def _main(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error
            for session in self._now():
                session.kill()
        finally:
            for undo in self._undo:
                undo()
            self.state = "ended"
            self.ended.set()

    def _run(self) -> None:
        raise NotImplementedError

    def _connect(self) -> bool:
        """Wait until the link may be used. False: this route has been stopped."""
        self.state = "connecting"
        while not self._stopping.is_set():
            if self.link.open():
                return True
            self._stopping.wait(LOOK)
        return False

    def _key(self, kind: str, epoch: int | None = None) -> str:
        return f"{PREFIX}/{self.name}/{kind}/{'*' if epoch is None else f'{epoch:016x}'}"

    def _channel(self, epoch: int, peer: int, *, rpc: bool, sends: bool, receives: bool) -> Channel:
        return Channel(epoch, peer, self.terms, rpc=rpc, sends=sends, receives=receives, now=monotonic())

    def _decode(self, data: bytes) -> Sample | None:
        """Take a sample apart; None for what is none, which is told once: a stranger may send any number of them."""
        try:
            return decode(data)
        except BadSample as error:
            if not self._warned:
                self._warned = True
                log.warning("%s: what came is dropped, and so will be more of it: %s", self.name, error)
            return None

    def _add(self, session: Session, importer: int) -> None:
        with self._lock:
            self._sessions[importer] = session

        def over(session: Session) -> None:
            self.outcome = session.outcome
            with self._lock:
                self._sessions.pop(importer, None)
                for key, value in session.stats().items():
                    if key not in ("kept", "waiting"):
                        self._past[key] = self._past.get(key, 0) + value

        session.on_done = over
        session.start()
        if self._stopping.is_set():
            session.stop(self.terms.grace)

    def _wait_for(self, attempt: Callable[[], Any]) -> Any:
        """Try again and again until it is there; None if this route is stopped."""
        while not self._stopping.is_set():
            try:
                return attempt()
            except TachyonTimeoutError:
                continue
        return None


class OpenBus:
    """How a gateway opens its end of a Bus: it listens for the program, or connects to it."""

    def __init__(self, path: str, capacity: int | None, mode: int, largest: int) -> None:
        """Listen now, so that what is wrong is told at once. A capacity of None: connect, when the time comes."""
        self.path = path
        self.largest = largest
        self._listener = Listener(path, capacity, mode=mode, max_large=largest) if capacity is not None else None

    def attempt(self) -> Bus:
        """Try for a moment. TachyonTimeoutError: not yet."""
        if self._listener is not None:
            return self._listener.accept(timeout=LOOK)
        return Bus.connect(self.path, timeout=LOOK, max_capacity=self.largest, max_large=self.largest)

    def close(self) -> None:
        """Nobody else will be let in."""
        if self._listener is not None:
            self._listener.close()


class BusRoute(Route):
    """A route of one Bus: one session, and with it the route ends."""

    def __init__(self, link: Link, name: str, path: str, terms: Terms, opening: OpenBus) -> None:
        """As Route; `opening` is how the bus is opened."""
        super().__init__(link, name, path, terms)
        self._opening = opening
        self._undo.append(opening.close)

    def _run(self) -> None:
        self.state = f"waiting for the program at {self.path}"
        try:
            bus = self._wait_for(self._opening.attempt)
        finally:
            self._opening.close()
        if bus is None:
            return
        try:
            if not self._connect():
                return
            self.state = "waiting for the other side"
            self._serve(bus)
            while not self._wait_for_end():
                pass
        finally:
            bus.abort()  # without effect on one that has ended

    def _wait_for_end(self) -> bool:
        for session in self._now():
            if session.channel.open:
                self.state = "open"
            session.done.wait(LOOK)
            return False
        # A session may have begun during the wait: then the bus is its own.
        return self.outcome is not None or (self._stopping.wait(LOOK) and not self._now())

    def _serve(self, bus: Bus) -> None:
        raise NotImplementedError


class Exporting(Route):
    """What routes that export have in common: importers greet, and each that is let in gets a session."""

    def _export(self) -> None:
        self._present: dict[int, bool] = {}
        self._presence = threading.Lock()  # nobody comes or goes between a look and a session
        self._undo.append(self.link.watch(self._key("i"), self._on_presence))
        self._undo.append(self.link.subscribe(self._key("u"), self._on_sample))

    def _on_presence(self, key: str, present: bool) -> None:
        importer = self._importer_of(key)
        with self._presence:
            if present and len(self._present) < 4 * MOST_CALLERS:
                self._present[importer] = True
            elif not present:
                self._present.pop(importer, None)
            session = self._sessions.get(importer)
            if session is not None:
                session.on_presence(present)

    def _on_sample(self, key: str, data: bytes) -> None:
        importer = self._importer_of(key)
        sample = self._decode(data)
        if sample is None:
            return
        session = self._sessions.get(importer)
        if session is not None:
            session.on_sample(sample)
        elif sample.kind == Kind.HELLO and sample.sender == importer:
            self._greeted(importer, sample)
        elif sample.kind not in (Kind.RESET, Kind.HELLO):
            self._answer(importer, sample, How.UNKNOWN)

    @staticmethod
    def _importer_of(key: str) -> int:
        try:
            return int(key.rpartition("/")[2], 16)
        except ValueError:
            return 0

    def _answer(self, importer: int, sample: Sample, how: How, text: str = "") -> None:
        """To one that has no session here."""
        with suppress(OSError):  # the link is being closed
            put, undo = self.link.publish(self._key("d", importer), urgent=True)
            put(encode(Kind.RESET, sample.to or 1, sample.sender, 0, how, reason(text)))
            undo()

    def _greeted(self, importer: int, sample: Sample) -> None:
        raise NotImplementedError

    def _meet(self, importer: int, sample: Sample, bus: Bus | RpcBus, rpc: bool) -> None:
        channel = self._channel(new_epoch(), importer, rpc=rpc, sends=True, receives=rpc)
        channel.greeted(sample)
        undo = [self.link.announce(self._key("e", importer))]
        session = Session(self.link, self._key("d", importer), bus, channel, undo)
        with self._presence:
            if self._present.get(importer):
                session.on_presence(True)
            self._add(session, importer)


class BusExport(Exporting, BusRoute):
    """A Bus whose producer is here."""

    def _serve(self, bus: Bus) -> None:
        self._bus = bus
        self._served = False
        self._export()

    def _greeted(self, importer: int, sample: Sample) -> None:
        if not self._served:
            if self._stopping.is_set():
                return
            self._served = True
            self._meet(importer, sample, self._bus, rpc=False)
            return
        for other, session in list(self._sessions.items()):
            if self._present.get(other):
                self._answer(importer, sample, How.REFUSED, f"{self.name} is being imported by another gateway")
            else:  # it was restarted: what it had is lost, so this is an end, and nothing to go on with
                session.lose()


class RpcExport(Exporting):
    """Callers from the other side, each behind a connection of its own to the server here."""

    def _run(self) -> None:
        self._pending: set[int] = set()
        if not self._connect():
            return
        self._export()
        self.state = "open"
        self._stopping.wait()
        for session in self._now():
            session.done.wait(2 * self.terms.grace)

    def _greeted(self, importer: int, sample: Sample) -> None:
        if self._stopping.is_set() or importer in self._pending:
            return
        if len(self._pending) + len(self._sessions) >= MOST_CALLERS:
            self._answer(importer, sample, How.REFUSED, f"{self.name} has {MOST_CALLERS} callers already")
            return
        self._pending.add(importer)
        try:
            threading.Thread(target=self._let_in, args=(importer, sample), daemon=True).start()
        except RuntimeError as error:  # too many threads; the importer greets again
            log.warning("a caller of %s has to wait: %s", self.name, error)
            self._pending.discard(importer)

    def _let_in(self, importer: int, sample: Sample) -> None:
        try:
            largest = self.terms.largest
            bus = RpcBus.connect(self.path, timeout=FIRST_ATTEMPT, max_capacity=largest, max_large=largest)
            try:
                self._meet(importer, sample, bus, rpc=True)
            except BaseException:
                bus.abort()
                raise
        except Exception as error:
            log.warning("a caller of %s was not let in: %s", self.name, error)
            self._answer(importer, sample, How.REFUSED, str(error))
        finally:
            self._pending.discard(importer)


class Importing(Route):
    """What routes that import have in common: each bus greets until it is answered."""

    def _import(self, bus: Bus | RpcBus, rpc: bool) -> None:
        epoch = new_epoch()
        channel = self._channel(epoch, 0, rpc=rpc, sends=rpc, receives=True)
        undo: list[Undo] = []
        session = Session(self.link, self._key("u", epoch), bus, channel, undo)

        def on_sample(_: str, data: bytes) -> None:
            sample = self._decode(data)
            if sample is not None:
                session.on_sample(sample)

        undo.append(self.link.subscribe(self._key("d", epoch), on_sample))
        undo.append(self.link.watch(self._key("e", epoch), lambda _, present: session.on_presence(present)))
        undo.append(self.link.announce(self._key("i", epoch)))
        self._add(session, epoch)


class BusImport(Importing, BusRoute):
    """A Bus whose consumer is here."""

    def _serve(self, bus: Bus) -> None:
        self._import(bus, rpc=False)


class RpcImport(Importing):
    """Callers here, of a server on the other side."""

    def __init__(self, link: Link, name: str, path: str, terms: Terms, listener: RpcListener) -> None:
        """As Route; callers connect to `listener`."""
        super().__init__(link, name, path, terms)
        self._listener = listener
        self._undo.append(listener.close)

    def _run(self) -> None:
        if not self._connect():
            return
        self.state = "open"
        with self._listener:
            while not self._stopping.is_set():
                try:
                    bus = self._listener.accept(timeout=LOOK)
                except (TachyonTimeoutError, HandshakeError):
                    continue
                except BusClosedError:
                    break
                if len(self._sessions) >= MOST_CALLERS:
                    log.warning("%s has %d callers already; another one is dropped", self.name, MOST_CALLERS)
                    bus.abort()
                    continue
                self._import(bus, rpc=True)
        for session in self._now():
            session.done.wait(2 * self.terms.grace)
