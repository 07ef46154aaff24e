"""Every way to send, and every way to receive."""

import time

RECEIVE = {
    "recv": lambda bus: bus.recv(timeout=30),
    "recv_into": lambda bus: bus.recv_into(bytearray(4096), timeout=30),
    "recv_zero_copy": lambda bus: bus.recv_zero_copy(timeout=30),
    "drain_batch": lambda bus: bus.drain_batch(timeout=30),
}

SEND = {
    "send": lambda bus: bus.send(b"late", timeout=30),
    "send strided": lambda bus: bus.send(memoryview(b"l_a_t_e_")[::2], timeout=30),
    "send_many": lambda bus: bus.send_many([b"late"], timeout=30),
    "send_zero_copy": lambda bus: bus.send_zero_copy(4, timeout=30).__exit__(None, None, None),
}


def try_recv(bus):
    """try_recv until it has something to say; the kernel is asked for news of the peer every 0.1 ms only."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        message = bus.try_recv()
        if message is not None:
            return message
    raise AssertionError("nothing")
