"""Map a function over many small items in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CHUNK = 64  # items a task: with one each, threads wait for one another for longer than they decode a small image

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the results in order; raise the error of the first chunk that has one."""

    def chunk(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + CHUNK]]

    with ThreadPoolExecutor() as pool:
        return [result for results in pool.map(chunk, range(0, len(items), CHUNK)) for result in results]
