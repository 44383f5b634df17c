"""Variable-length rows of blocks of values, such as frames of a spectrogram."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warmstart.data.storage.ragged import PaddedRows, Rows, to_index


class Frames(PaddedRows):
    """Concatenated rows, which are padded with zeros to the longest row of a batch.

    Args:
        values: blocks of all rows (V, ...), float; the array may be a memory map.
        starts: start of each row in `values`, and the end of the last (N + 1,).
        context: maximum length of a row.
    """

    def __init__(self, values: np.ndarray, starts: np.ndarray, context: int):
        self.values, self.starts, self.context = values, starts, context

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, maximum length of a row, and shape of a block."""
        return len(self), self.context, *self.values.shape[1:]

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the rows (N,)."""
        return np.diff(self.starts)

    @property
    def tokens(self) -> int:
        """Total length of all rows."""
        return len(self.values)

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return padded rows (B, T, ...) and the mask of valid positions (B, T); None if all are valid."""
        rows = to_index(rows)
        starts, lengths = self.starts[:-1][rows], self.lengths[rows]
        columns = np.arange(max(1, int(lengths.max(initial=0))))
        valid = columns < lengths[:, None]
        x = np.zeros((*valid.shape, *self.values.shape[1:]), dtype=self.values.dtype)
        x[valid] = self.values[(starts[:, None] + columns)[valid]]
        return torch.from_numpy(x), None if valid.all() else torch.from_numpy(valid)
