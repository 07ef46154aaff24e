"""tachyon in an asyncio event loop: the classes of `tachyon`, whose methods that wait are coroutines.

Nothing here is imported by `import tachyon`: `from tachyon import aio`. For other loops there are Bus.fileno
and Bus.arm.
See docs/asyncio.md.
"""

from __future__ import annotations

from tachyon.aio._bus import Bus
from tachyon.aio._client import RpcClient
from tachyon.aio._listener import Listener, RpcListener
from tachyon.aio._rpc import RpcBus
from tachyon.aio._server import RpcServer

__all__ = ["Bus", "Listener", "RpcBus", "RpcClient", "RpcListener", "RpcServer"]
