"""Rows of different lengths in one flat array, padded a batch at a time or packed into blocks without padding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Rows = slice | Tensor | np.ndarray


class PaddedRows:
    """Rows that a loader takes a batch at a time, padded to the longest of them.

    `lengths` are the positions that each takes (N,), None where these are all alike, and `tokens` those of all
    together; `bytes_per_token` are of the raw text, 0 where that is not known.
    """

    lengths: np.ndarray | None = None
    tokens: int
    bytes_per_token: float = 0.0

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Rows (B, T, ...), and where they are valid (B, T); None where they are everywhere."""
        raise NotImplementedError

    def redraw(self, generator: torch.Generator) -> None:
        """Draw what is another in each epoch."""

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Padded rows (B, T, ...), as of a tensor."""
        return self.padded(rows)[0]

    def __getitem__(self, rows: Rows) -> Tensor:
        return self.padded(rows)[0]


class Ragged(PaddedRows):
    """Rows of whole numbers, one after the other; the array may be a memory map.

    Args:
        values: all numbers (V,).
        starts: where each row starts in `values`, and where the last one ends (N + 1,).
        whole: how long each row was before it was cut off (N,).
        padding: what fills up a batch.
        context: most numbers of a row that a batch shows.
        suffix: the numbers that a row ends with, and so does one that is cut off.
        size: bytes of the raw text that `values` are made of; 0 where that is not known.
        types: the token type of each number (V,); None where all are 0.
    """

    def __init__(
        self,
        values: np.ndarray,
        starts: np.ndarray,
        whole: np.ndarray,
        padding: int,
        context: int,
        suffix: tuple[int, ...] = (),
        size: int = 0,
        types: np.ndarray | None = None,
    ):
        self.values, self.starts, self.whole, self.padding = values, starts, whole, padding
        self.context, self.suffix, self.size = context, np.array(suffix, dtype=np.int64), size
        self.types = types

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and the most positions that one of them takes."""
        return len(self), self.context

    @property
    def lengths(self) -> np.ndarray:
        """Positions that each row takes in a batch (N,)."""
        return np.minimum(np.diff(self.starts), self.context)

    @property
    def tokens(self) -> int:
        """Positions of all rows together."""
        return int(self.lengths.sum())

    @property
    def bytes_per_token(self) -> float:
        """Of the raw text, padding and special tokens included; 0 where that is not known."""
        return self.size / len(self.values) if len(self.values) else 0.0

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Rows (B, T), T being the longest of them, and where they are valid (B, T); None where they are everywhere.

        Where there are token types, the mask is of bytes: 1 + the type of a valid position, and 0 for padding.
        """
        rows = plain(rows)
        starts, stored = self.starts[:-1][rows], np.diff(self.starts)[rows]
        lengths = np.minimum(stored, self.context)
        longest = max(1, int(lengths.max(initial=0)))
        columns = np.arange(longest)
        valid = columns < lengths[:, None]
        index = np.where(valid, starts[:, None] + columns, 0)
        x = np.full(valid.shape, self.padding, dtype=np.int64)
        if len(self.values):
            x = np.where(valid, self.values[index], x)
        if len(self.suffix) and (cut := stored > self.context).any():
            x[cut, self.context - len(self.suffix) : self.context] = self.suffix
        if self.types is not None:
            return torch.from_numpy(x), torch.from_numpy(np.where(valid, self.types[index] + 1, 0).astype(np.uint8))
        return torch.from_numpy(x), None if valid.all() else torch.from_numpy(valid)


class Packed(PaddedRows):
    """Blocks of `block` positions cut from all rows put end to end, so that nothing is padded.

    Blocks start `offset` positions further on, and go on at the beginning; a loader draws another offset every epoch.

    Args:
        rows: what is packed, whole.
        block: positions of a block; no more than there are.
        separate: also number the rows in a block, so that attention can be kept inside each.
    """

    def __init__(self, rows: Ragged, block: int, separate: bool = False):
        self.rows, self.separate = rows, separate
        self.block = min(block, len(rows.values))
        self.offset = 0
        self.bytes_per_token = rows.bytes_per_token

    def __len__(self) -> int:
        return len(self.rows.values) // self.block if self.block else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks, and the positions of each."""
        return len(self), self.block

    @property
    def tokens(self) -> int:
        """Positions of all blocks together."""
        return len(self) * self.block

    def redraw(self, generator: torch.Generator) -> None:
        """Cut the blocks anew."""
        self.offset = int(torch.randint(self.block, (), generator=generator))

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Blocks (B, T), and the number of each position's row (B, T), from 1 on, where they are to be told apart."""
        numbers = np.arange(len(self))[plain(rows)]
        index = numbers[:, None] * self.block + self.offset + np.arange(self.block)
        index %= max(1, len(self.rows.values))
        x = torch.from_numpy(self.rows.values[index].astype(np.int64))
        if not self.separate:
            return x, None
        document = np.searchsorted(self.rows.starts, index, side="right")
        changes = np.diff(document, axis=1, prepend=document[:, :1]) != 0
        return x, torch.from_numpy(1 + changes.cumsum(1))


def plain(rows: Rows) -> slice | np.ndarray:
    """Row numbers as NumPy indexes by them; it would take a tensor of one number for a number."""
    return rows if isinstance(rows, slice) else np.asarray(rows)
