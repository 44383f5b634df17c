"""Thread pool for many small items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CHUNK = 64  # items per task: with one, the overhead exceeds the time to decode a small image

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map a function over items in threads; return the results in order, or raise the first error."""

    def chunk(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + CHUNK]]

    with ThreadPoolExecutor() as pool:
        return [result for results in pool.map(chunk, range(0, len(items), CHUNK)) for result in results]
