"""A market in one process, a reader of it in another.

python run.py consumer /tmp/market.sock inlined
python run.py producer /tmp/market.sock inlined 20000000
python run.py compare [TICKS]       both, one after the other for each way: plain, methods, inlined
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time

import tachyon

RING = 1 << 20


def consumer(path: str, way: str) -> None:
    """Wait for a producer, and print what came of its ticks."""
    module = importlib.import_module(way)
    with tachyon.Bus.listen(path, RING) as bus:
        bus_is_open = time.perf_counter()
        result = module.consume(bus)
        result["seconds"] = time.perf_counter() - bus_is_open
    print(json.dumps(result), flush=True)


def producer(path: str, way: str, count: str) -> None:
    """Send so many ticks."""
    module = importlib.import_module(way)
    with tachyon.Bus.connect(path, timeout=10) as bus:
        module.produce(bus, int(count))


def compare(count: str = "2000000") -> None:
    """Run both sides in each way, and print the rates."""
    results = []
    for way in ("plain", "methods", "inlined"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "consumer", f"{folder}/market", way]
            reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                producer(f"{folder}/market", way, count)
                out, _ = reader.communicate(timeout=600)
            finally:
                reader.kill()
        result = json.loads(out)
        seconds = result.pop("seconds")
        results.append(result)
        vwap, bid, ask = (result[each] for each in ("vwap", "bid", "ask"))
        print(f"{way:8} {result['ticks'] / seconds / 1e6:8.2f} million ticks/s   VWAP {vwap:.4f}, top {bid} / {ask}")
    if any(result != results[0] for result in results) or results[0]["missed"]:
        sys.exit(f"they do not agree: {results}")


if __name__ == "__main__":
    commands = {"consumer": consumer, "producer": producer, "compare": compare}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
