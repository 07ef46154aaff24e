"""Buses whose other end is on another machine: a gateway on each, and a link between them.

    tls = {"ca": "ca.pem", "certificate": "here.pem", "key": "here.key"}

    with tachyon.bridge.Gateway(connect="tls/198.51.100.7:7447", **tls) as gateway:
        gateway.export("/run/ticks", "ticks")     # a Bus.connect here sends
        gateway.wait()

    with tachyon.bridge.Gateway(listen="tls/0.0.0.0:7447", **tls) as gateway:
        gateway.import_("ticks", "/run/ticks")    # to a Bus.listen there
        gateway.wait()

Needs `pip install tachyon-ipc[zenoh]`; `python -m tachyon bridge` is the same as a command. docs/bridge.md says what is
guaranteed and what is not.
"""

from __future__ import annotations

from tachyon.bridge._channel import Outcome
from tachyon.bridge._gateway import Gateway
from tachyon.bridge._routes import Route
from tachyon.bridge._samples import How

__all__ = ["Gateway", "How", "Outcome", "Route"]
