"""Eclipse Zenoh as a link: it connects, encrypts, routes, reconnects. It guarantees no delivery; a Channel does."""

from __future__ import annotations

import ipaddress
import json
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from tachyon._errors import TachyonError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tachyon.bridge._link import Put, Undo

try:
    import zenoh
except ImportError:
    raise ImportError("tachyon.bridge needs Eclipse Zenoh: pip install 'tachyon-ipc[zenoh]'") from None

TLS = "transport/link/tls/"
ENCRYPTED = ("tls/", "quic/")

# What is not as in Zenoh itself, unless a configuration file says otherwise.
DEFAULTS: dict[str, Any] = {
    "scouting/multicast/enabled": False,  # nobody is connected to but who was named
    "scouting/gossip/enabled": False,
    "transport/shared_memory/enabled": False,
    "transport/link/tx/queue/size/data": 16,  # of 64 KiB: fewer turns between who puts and who sends
    "listen/endpoints": [],
    "connect/timeout_ms": {"peer": -1, "router": -1, "client": 500},  # the other machine may come later: see open()
    "connect/exit_on_failure": False,
    "connect/retry": {"period_init_ms": 200, "period_max_ms": 1000, "period_increase_factor": 2},
}


@dataclass(frozen=True)
class Endpoints:
    """Where a gateway listens and what it connects to: zenoh's endpoints, e.g. tls/host:7447, and who may come.

    ca: file of the authority that has to have signed the other side's certificate. certificate, key: files with ours.
    config: file with a Zenoh configuration. insecure: allow links that are not encrypted, or let in anybody, away from
    loopback.
    """

    connect: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    config: str | None = None
    insecure: bool = False

    def check(self) -> None:
        """Raise ValueError for what cannot work, or is not safe."""
        if not (self.connect or self.listen or self.config):
            raise ValueError("name an endpoint to connect to, or one to listen at, e.g. tls/192.0.2.7:7447")
        for each in (*self.connect, *self.listen):
            protocol, slash, address = each.partition("/")
            if not (slash and protocol and address):
                raise ValueError(f"{each!r} is not an endpoint; write e.g. tls/192.0.2.7:7447")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("a certificate and its key belong together; name both files")
        for file in (self.ca, self.certificate, self.key, self.config):
            if file is not None and not os.access(file, os.R_OK):
                raise ValueError(f"{file} cannot be read")
        if not self.config:
            for each in (*self.connect, *self.listen):
                if each.startswith(ENCRYPTED) and not self.ca and not (each in self.listen and self.insecure):
                    raise ValueError(f"{each} needs the authority (ca) that signed the other side's certificate")
                if each.startswith(ENCRYPTED) and each in self.listen and not self.certificate:
                    raise ValueError(f"{each} needs a certificate and a key to listen with")

    def _check_safety(self, config: zenoh.Config) -> None:
        """Whether the endpoints came as options or in a file."""
        listen, connect = (_endpoints_in(config, f"{each}/endpoints") for each in ("listen", "connect"))
        for each in (*listen, *connect):
            if not _is_safe(each):
                raise ValueError(
                    f"{each} leaves this machine without encryption; use tls/…, or allow it (--insecure, insecure=True)"
                )
        for each in listen:
            if each.startswith(ENCRYPTED) and json.loads(config.get_json(f"{TLS}enable_mtls")) is not True:
                raise ValueError(
                    f"{each} would let in anybody: name the authority (ca) that signed the other side's certificate, "
                    "or allow it (--insecure, insecure=True)"
                )

    def configuration(self, largest: int) -> zenoh.Config:
        """Return Zenoh's configuration for samples of up to `largest` bytes. Raises ValueError."""
        self.check()
        try:
            config: zenoh.Config = zenoh.Config.from_file(self.config) if self.config else zenoh.Config()
            plain = zenoh.Config()
            # Routers pass on what clients send, but not what peers do. A client may connect to a peer, too.
            mode = "peer" if self.listen else "client"
            for path, value in {**DEFAULTS, "transport/link/rx/max_message_size": largest, "mode": mode}.items():
                if config.get_json(path) == plain.get_json(path):
                    config.insert_json5(path, json.dumps(value))
            for path, given in self._given().items():
                config.insert_json5(path, json.dumps(given))
        except zenoh.ZError as error:
            raise ValueError(f"the configuration of Zenoh: {error}") from None
        if not self.insecure:
            self._check_safety(config)
        return config

    def _given(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self.connect:
            given["connect/endpoints"] = list(self.connect)
        if self.listen:
            given["listen/endpoints"] = list(self.listen)
        if self.ca:
            given |= {f"{TLS}root_ca_certificate": self.ca, f"{TLS}enable_mtls": bool(self.certificate)}
        if self.certificate:
            for side in ("listen", "connect"):
                given |= {f"{TLS}{side}_certificate": self.certificate, f"{TLS}{side}_private_key": self.key}
        return given


def _endpoints_in(config: zenoh.Config, path: str) -> list[str]:
    found = json.loads(config.get_json(path))
    if isinstance(found, dict):  # for each mode
        found = found.get(json.loads(config.get_json("mode")), [])
    return list(found or [])


def _is_safe(endpoint: str) -> bool:
    address = endpoint.partition("/")[2]
    if endpoint.startswith((*ENCRYPTED, "unixsock-stream/", "unixpipe/")):
        return True
    host = address.split("?", maxsplit=1)[0].split("#", maxsplit=1)[0].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def log_to_stderr() -> None:
    """Have Zenoh say what goes wrong; RUST_LOG chooses otherwise."""
    zenoh.init_log_from_env_or("error")


class ZenohLink:
    """A Link over one Zenoh session."""

    def __init__(self, endpoints: Endpoints, largest: int = 1 << 20) -> None:
        """Check them. Raises ValueError for what cannot be. `largest`: bytes of a sample that is let in."""
        self._config = endpoints.configuration(largest)
        self._callbacks: list[weakref.ref[Callable[..., None]]] = []
        self._opened: zenoh.Session | None = None
        self._closed = False
        self._lock = Lock()

    def open(self) -> bool:
        """As Link.open. Raises TachyonError for what waiting does not mend."""
        with self._lock:
            if self._opened is None and not self._closed:
                try:
                    self._opened = zenoh.open(self._config)
                except zenoh.ZError as error:
                    # Only a client needs somebody to connect to before there is a session at all.
                    if not str(error).startswith("Unable to connect"):
                        raise TachyonError(f"Zenoh cannot be opened: {error}") from None
            return self._opened is not None

    @property
    def _session(self) -> zenoh.Session:
        if self._opened is None:
            raise OSError("this link is not open")
        return self._opened

    def publish(self, key: str, *, urgent: bool = False) -> tuple[Put, Undo]:
        """As Link.publish."""
        publisher = _declare(
            self._session.declare_publisher,
            key,
            congestion_control=zenoh.CongestionControl.BLOCK,
            priority=zenoh.Priority.INTERACTIVE_HIGH if urgent else zenoh.Priority.DATA,
            express=True,  # what could be sent together is together already
        )

        def put(sample: bytes) -> None:
            try:
                publisher.put(sample)
            except zenoh.ZError as error:
                raise OSError(str(error)) from None

        return put, _undo(publisher)

    def subscribe(self, key: str, on_sample: Callable[[str, bytes], None]) -> Undo:
        """As Link.subscribe."""

        self._forget()

        def deliver(sample: zenoh.Sample) -> None:
            on_sample(str(sample.key_expr), sample.payload.to_bytes())

        self._callbacks.append(weakref.ref(deliver))
        return _undo(_declare(self._session.declare_subscriber, key, deliver))

    def announce(self, key: str) -> Undo:
        """As Link.announce."""
        return _undo(_declare(self._session.liveliness().declare_token, key))

    def watch(self, key: str, on_presence: Callable[[str, bool], None]) -> Undo:
        """As Link.watch."""

        self._forget()

        def tell(sample: zenoh.Sample) -> None:
            on_presence(str(sample.key_expr), sample.kind == zenoh.SampleKind.PUT)

        self._callbacks.append(weakref.ref(tell))
        return _undo(_declare(self._session.liveliness().declare_subscriber, key, tell, history=True))

    def _forget(self) -> None:
        self._callbacks = [each for each in self._callbacks if each() is not None]

    def close(self) -> None:
        """As Link.close."""
        with self._lock:
            self._closed = True
            opened: Any = self._opened
            if opened is not None:
                with suppress(zenoh.ZError):
                    opened.close()
        # Zenoh's threads let go of what they called a moment later; one that does so when the interpreter has begun to
        # end takes the process down.
        deadline = monotonic() + 1.0
        while any(each() is not None for each in self._callbacks) and monotonic() < deadline:
            sleep(0.001)


def _declare(declare: Callable[..., Any], *args: object, **options: object) -> Any:
    try:
        return declare(*args, **options)
    except zenoh.ZError as error:  # closed
        raise OSError(str(error)) from None


def _undo(declared: Any) -> Undo:
    def undo() -> None:
        with suppress(zenoh.ZError):
            declared.undeclare()

    return undo
