"""The gateway of one machine: one link, any number of routes."""

from __future__ import annotations

import os
import re
from time import monotonic
from typing import TYPE_CHECKING, Any

from tachyon._tachyon import RpcListener
from tachyon.bridge._channel import Terms
from tachyon.bridge._routes import BusExport, BusImport, Exporting, OpenBus, Route, RpcExport, RpcImport
from tachyon.bridge._session import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from tachyon.bridge._link import Link

NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
LEAST_WINDOW, MOST_WINDOW = 64 << 10, 1 << 30
WINDOW = 4 << 20
GRACE = 10.0
LARGEST, MOST_LARGEST = 64 << 20, 1 << 29


def check_name(name: str) -> str:
    """Return it. ValueError for one that is none."""
    if not NAME.fullmatch(name) or len(name) > 200:
        raise ValueError(f"{name!r} is not a name: letters, digits, '.', '_', '-', and '/' between parts")
    return name


class Gateway:
    """Carries buses of this machine to and from another one. A context manager; for any thread.

    connect, listen: endpoints of Zenoh, one or several, e.g. tls/198.51.100.7:7447. ca, certificate, key: files for
    TLS. config: file with a Zenoh configuration. insecure: allow links without encryption away from loopback.
    window: bytes on their way at most, for each stream: bandwidth times delay. grace: seconds that the other gateway
    may be away before its buses end with PeerDeadError. max_large: of the buses, see Bus.listen; no ring may be larger
    either. It bounds what a batch can cost. link: instead of Zenoh, see tachyon.bridge._link.
    Raises ValueError for what cannot be. The link connects, and connects again, by itself: the routes wait for it.
    """

    def __init__(
        self,
        *,
        connect: str | Iterable[str] = (),
        listen: str | Iterable[str] = (),
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        config: str | None = None,
        insecure: bool = False,
        window: int = WINDOW,
        grace: float = GRACE,
        max_large: int = LARGEST,
        link: Link | None = None,
    ) -> None:
        """Check all of that. Nothing is opened before the first route."""
        if not LEAST_WINDOW <= window <= MOST_WINDOW:
            raise ValueError(f"the window must be {LEAST_WINDOW} to {MOST_WINDOW} bytes, not {window}")
        if not 0.1 <= grace <= 86400:
            raise ValueError(f"the grace must be 0.1 to 86400 seconds, not {grace}")
        if not LEAST_WINDOW <= max_large <= MOST_LARGEST or max_large & (max_large - 1):
            raise ValueError(
                f"max_large must be a power of two from {LEAST_WINDOW} to {MOST_LARGEST} bytes, not {max_large}"
            )
        self._terms = Terms(window, grace, max_large)
        self.routes: list[Route] = []
        if link is None:
            from tachyon.bridge._zenoh import Endpoints, ZenohLink

            ends = Endpoints(_several(connect), _several(listen), ca, certificate, key, config, insecure)
            link = ZenohLink(ends, max_large + 2 * BATCH)
        self._link = link

    def export(
        self, path: str, name: str, *, capacity: int = 4 << 20, listens: bool = True, mode: int = 0o600
    ) -> Route:
        """Carry a Bus whose producer is here. listens: at `path`, for a program that connects; else connect to it."""
        self._check_export(name)
        opening = self._opening(path, capacity, listens, mode)
        return self._begin(BusExport(self._link, check_name(name), _path(path), self._terms, opening))

    def import_(
        self, name: str, path: str, *, capacity: int = 4 << 20, listens: bool = False, mode: int = 0o600
    ) -> Route:
        """Carry a Bus whose consumer is here. listens: as export; by default the program does."""
        opening = self._opening(path, capacity, listens, mode)
        return self._begin(BusImport(self._link, check_name(name), _path(path), self._terms, opening))

    def export_rpc(self, path: str, name: str) -> Route:
        """Let callers from afar call the RpcServer that listens at `path`, each over a connection of its own."""
        self._check_export(name)
        return self._begin(RpcExport(self._link, check_name(name), _path(path), self._terms))

    def import_rpc(
        self, name: str, path: str, *, cap_fwd: int = 1 << 20, cap_rev: int = 1 << 20, mode: int = 0o600
    ) -> Route:
        """Listen at `path` for callers (RpcBus.connect), and carry each to the server that is exported as `name`."""
        self._check_capacities(cap_fwd, cap_rev)
        listener = RpcListener(path, cap_fwd, cap_rev, mode=mode, max_large=self._terms.largest)
        return self._begin(RpcImport(self._link, check_name(name), _path(path), self._terms, listener))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all routes have ended. False: not within `timeout` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        for route in self.routes:
            while not route.ended.wait(0.2 if deadline is None else max(0.0, min(0.2, deadline - monotonic()))):
                if deadline is not None and monotonic() >= deadline:
                    return False
        return True

    def stop(self) -> None:
        """End all routes in good order: what the rings hold still goes over, for `grace` seconds. Does not wait."""
        for route in self.routes:
            route.stop()

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return for each name its state and counters."""
        return {route.name: {"state": route.state, **route.stats()} for route in self.routes}

    def close(self) -> None:
        """End all routes now, and the link. Idempotent. The programs get PeerDeadError."""
        for route in self.routes:
            route.kill()
        self.wait(2.0)
        self._link.close()

    def __enter__(self) -> Gateway:
        """Return the gateway."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _opening(self, path: str, capacity: int, listens: bool, mode: int) -> OpenBus:
        if listens:
            self._check_capacities(capacity)
        return OpenBus(_path(path), capacity if listens else None, mode, self._terms.largest)

    def _check_export(self, name: str) -> None:
        """Importers would meet both, and hear one."""
        for route in self.routes:
            if isinstance(route, Exporting) and route.name == name and not route.ended.is_set():
                raise ValueError(f"{name!r} is exported already; give this one a name of its own")

    def _check_capacities(self, *capacities: int) -> None:
        for capacity in capacities:
            if capacity > self._terms.largest:
                raise ValueError(
                    f"a ring of {capacity} bytes takes messages larger than this gateway, up to max_large "
                    f"({self._terms.largest}): raise that, or take a smaller ring"
                )

    def _begin(self, route: Route) -> Route:
        self.routes.append(route)
        route.start()
        return route


def _several(endpoints: str | Iterable[str]) -> tuple[str, ...]:
    return (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)


def _path(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    return os.fsdecode(path)
