"""A callee that shakes hands like any other and then fills its ring with replies that nobody has asked for."""

FLOOD = """
import threading
import numpy as np
with tachyon.RpcBus.listen(path, int(sys.argv[2]), int(sys.argv[3]), timeout=60) as callee:
    with open("/proc/self/maps") as maps:
        areas = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps if "memfd:tachyon" in line]
    start, end = max(areas, key=lambda area: area[1] - area[0])  # the replies' segment: a page, and the ring
    lines = np.frombuffer((ctypes.c_char * (end - start - 4096)).from_address(start + 4096), np.uint64).reshape(-1, 8)
    freed = ctypes.c_uint64.from_address(start + 128)
    told = []
    threading.Thread(target=lambda: told.append(hear()), daemon=True).start()
    written, until = 0, time.monotonic() + float(sys.argv[4])
    ready = False
    while not told and time.monotonic() < until:
        at = written % len(lines)
        count = min(freed.value // 64 + len(lines) - written, 1 << 14, len(lines) - at)
        if count == 0 and not ready:
            say("full")
            ready = True
        lines[at : at + count, 1] = 1 << 40  # the id of no call
        lines[at : at + count, 0] = 2 << 32 | 1
        written += count
    say("flooding" if told else "has given up")
    hear()
"""
