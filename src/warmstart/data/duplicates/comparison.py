"""How rows of two data sets are compared. Imports no torch, which sources of small tables do without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: mixes 64-bit keys


@dataclass(frozen=True)
class Overlap:
    """Sorted row indices of the test split; `near` excludes those in `exact`."""

    exact: list[int]
    near: list[int]


class Comparison:
    """Comparison of raw inputs of a modality; that of a preprocessor, or `ArrayRows`."""

    def keys(self, x: Any) -> np.ndarray:
        """Return a 64-bit hash of each row (N,), equal for copies."""
        raise NotImplementedError

    def by_chance(self, seen: Any, x: Any) -> np.ndarray:
        """Return which rows of `x` (N,) may equal a row of `seen` by chance, by default none; these do not count."""
        return np.zeros(len(x), dtype=bool)

    def near(self, seen: Any, parts: Sequence[Any]) -> list[list[int]] | None:
        """Return the rows of each part that are near duplicates of `seen`, by default none.

        None if the search would take too long.
        """
        return [[] for _ in parts]

    def shown(self, x: Any, row: int) -> str:
        """Return a description of a row for messages, besides its number; empty by default."""
        return ""


def to_keys(digests: Iterator[bytes]) -> np.ndarray:
    """Convert digests of 8 bytes to integers (N,)."""
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
