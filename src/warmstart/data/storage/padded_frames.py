"""Rows of frames with a fixed length, of which only the part before constant padding is stored."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warmstart.data.storage.ragged import PaddedRows, Rows, numbers


class FixedFrames(PaddedRows):
    """Concatenated rows; each is extended to `length` by repeating its last frame, so that all are valid.

    Args:
        values: frames of all rows (V, ...); the array may be a memory map.
        starts: start of each row in `values`, and the end of the last (N + 1,).
        length: length of a row in a batch.
    """

    def __init__(self, values: np.ndarray, starts: np.ndarray, length: int):
        self.values, self.starts, self.length = values, starts, length
        self.tokens = length * len(self)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, length of a row, and shape of a frame."""
        return len(self), self.length, *self.values.shape[1:]

    def padded(self, rows: Rows) -> tuple[Tensor, None]:
        """Return rows (B, length, ...); there is no mask."""
        rows = numbers(rows, len(self))
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        index = starts[:, None] + np.minimum(np.arange(self.length), lengths[:, None] - 1)
        return torch.from_numpy(np.asarray(self.values[index])), None
