"""Rows of tables that stand in two parts, and which of them chance explains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from warmstart.data.readers.columns import name_of, to_names, to_numbers

SHOWN, LONGEST = 3, 24  # cells of a row in a message, and characters of a cell


class TableRows:
    """Compares rows of cells: numbers by their value, names by their text, missing cells being alike.

    Args:
        categorical: columns of names; all others are numbers.
        columns: that are compared; None for all.
    """

    def __init__(self, categorical: Sequence[str], columns: Sequence[str] | None = None):
        self.categorical, self.columns = categorical, columns

    def keys(self, x: pd.DataFrame) -> np.ndarray:
        """Return 64 bits for each row (N,): the sum of those of its cells."""
        return sum(self._cells(x), np.zeros(len(x), dtype=np.uint64))

    def by_chance(self, seen: pd.DataFrame, x: pd.DataFrame) -> np.ndarray:
        """Return which rows of `x` (N,) differ from some seen row in a single column.

        Where rows like that are found, the columns leave so few combinations that equal rows need not be copies,
        however the columns depend on each other. A copied row of several measurements has none.
        """
        whole, own = self.keys(seen), self.keys(x)
        equal = _count(whole, own)
        found = np.zeros(len(x), dtype=bool)
        for theirs, ours in zip(self._cells(seen), self._cells(x)):
            found |= _count(whole - theirs, own - ours) > equal
        return found

    def near(self, seen: pd.DataFrame, parts: Sequence[pd.DataFrame]) -> list[list[int]]:
        """Return nothing: rows of small tables are near each other by chance."""
        return [[] for _ in parts]

    def shown(self, x: pd.DataFrame, row: int) -> str:
        """Return a row's first cells."""
        cells = [f"{name}={name_of(x[name].iloc[row])[:LONGEST]}" for name in x.columns[:SHOWN]]
        return ", ".join([*cells, "..."] if x.shape[1] > SHOWN else cells)

    def _cells(self, x: pd.DataFrame) -> Iterator[np.ndarray]:
        """Yield 64 bits for each cell of a column (N,), one column after another."""
        factors = np.random.default_rng(0)
        for name in x if self.columns is None else self.columns:
            factor = factors.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            if name in self.categorical:
                cells = to_names(x[name], "table")
            else:
                values = to_numbers(x[name], "table")
                cells = np.where(np.isnan(values), np.nan, values + 0.0)  # 0 for -0, and one NaN for all
            yield pd.util.hash_array(cells) * factor


def _count(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return how many of the values equal each wanted one (N,)."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted, side="left")
