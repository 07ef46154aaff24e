from collections.abc import Iterable

__build__: dict[str, str]

def run(arguments: Iterable[object]) -> int: ...
