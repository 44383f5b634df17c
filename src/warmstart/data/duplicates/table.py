"""Comparison of rows of tables, for the search for duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from warmstart.data.readers.columns import name_of, to_names, to_numbers

SHOWN, LONGEST = 3, 24  # cells of a row in a message, and characters of a cell


class TableRows:
    """Compares numbers by value and categories by text; missing cells are equal.

    Args:
        categorical: columns of categories; all others have numbers.
        columns: columns to compare; None for all.
    """

    def __init__(self, categorical: Sequence[str], columns: Sequence[str] | None = None):
        self.categorical, self.columns = categorical, columns

    def keys(self, x: pd.DataFrame) -> np.ndarray:
        """Return a 64-bit hash of each row (N,): the sum of the hashes of its cells."""
        return sum(self._cells(x), np.zeros(len(x), dtype=np.uint64))

    def by_chance(self, seen: pd.DataFrame, x: pd.DataFrame) -> np.ndarray:
        """Return which rows of `x` (N,) differ from a row of `seen` in a single column.

        If there are such rows, the columns have so few combinations that equal rows need not be copies. A copied row of
        several measurements has none.
        """
        seen_keys, keys = self.keys(seen), self.keys(x)
        equal = _count(seen_keys, keys)
        found = np.zeros(len(x), dtype=bool)
        for theirs, ours in zip(self._cells(seen), self._cells(x)):
            found |= _count(seen_keys - theirs, keys - ours) > equal
        return found

    def near(self, seen: pd.DataFrame, parts: Sequence[pd.DataFrame]) -> list[list[int]]:
        """Return empty lists: rows of small tables are near each other by chance."""
        return [[] for _ in parts]

    def shown(self, x: pd.DataFrame, row: int) -> str:
        """Return the first cells of a row."""
        cells = [f"{name}={name_of(x[name].iloc[row])[:LONGEST]}" for name in x.columns[:SHOWN]]
        return ", ".join([*cells, "..."] if x.shape[1] > SHOWN else cells)

    def _cells(self, x: pd.DataFrame) -> Iterator[np.ndarray]:
        """Yield a 64-bit hash of each cell (N,), by column."""
        factors = np.random.default_rng(0)
        for name in x if self.columns is None else self.columns:
            factor = factors.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            if name in self.categorical:
                cells = to_names(x[name], "table")
            else:
                values = to_numbers(x[name], "table")
                cells = np.where(np.isnan(values), np.nan, values + 0.0)  # normalizes -0 and NaN
            yield pd.util.hash_array(cells) * factor


def _count(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return how many of the values equal each key (N,)."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, keys, side="right") - np.searchsorted(ordered, keys, side="left")
