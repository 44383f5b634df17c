"""Rows of different lengths whose positions are blocks of values, such as frames of a spectrogram."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warmstart.data.storage.ragged import PaddedRows, Rows, plain


class Frames(PaddedRows):
    """Rows put end to end; a batch is padded with zeros to the longest of its rows.

    Args:
        values: the blocks of all rows (V, ...), float; the array may be a memory map.
        starts: where each row starts in `values`, and where the last one ends (N + 1,).
        context: most positions that a row may have.
    """

    def __init__(self, values: np.ndarray, starts: np.ndarray, context: int):
        self.values, self.starts, self.context = values, starts, context

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, the most positions of one, and the shape of a block."""
        return len(self), self.context, *self.values.shape[1:]

    @property
    def lengths(self) -> np.ndarray:
        """Positions of each row (N,)."""
        return np.diff(self.starts)

    @property
    def tokens(self) -> int:
        """Positions of all rows together."""
        return len(self.values)

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Rows (B, T, ...), T being the longest of them, and where they are valid (B, T); None where they are all."""
        rows = plain(rows)
        starts, lengths = self.starts[:-1][rows], self.lengths[rows]
        columns = np.arange(max(1, int(lengths.max(initial=0))))
        valid = columns < lengths[:, None]
        x = np.zeros((*valid.shape, *self.values.shape[1:]), dtype=self.values.dtype)
        x[valid] = self.values[(starts[:, None] + columns)[valid]]
        return torch.from_numpy(x), None if valid.all() else torch.from_numpy(valid)
