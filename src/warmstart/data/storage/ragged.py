"""Variable-length rows in one flat array, padded by batch, or packed into blocks without padding."""

from __future__ import annotations

import bisect

import numpy as np
import torch
from torch import Tensor

from warmstart.core.batch import Batch, Part

Rows = slice | Tensor | np.ndarray


class PaddedRows:
    """Base class of rows that are padded to the longest row of a batch.

    `lengths` (N,) are the lengths of the rows, None if all are equal; `tokens` is their sum. `bytes_per_token` is the
    number of bytes of raw text per token, 0 if unknown. `ratings` (N,) are whether rows are desirable, if rated.
    """

    lengths: np.ndarray | None = None
    ratings: Tensor | None = None
    tokens: int
    bytes_per_token: float = 0.0

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return padded rows (B, T, ...) and the mask of valid positions (B, T); None if all are valid."""
        raise NotImplementedError

    def part(self, batch: Batch, rows: Tensor, part: Part) -> Batch:
        """Return the rows of a part of the batch of these rows."""
        return batch.rows(part)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw random settings for the next epoch."""

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Return padded rows (B, T, ...), as Tensor.index_select does."""
        return self.padded(rows)[0]

    def __getitem__(self, rows: Rows) -> Tensor:
        return self.padded(rows)[0]


class Ragged(PaddedRows):
    """Variable-length rows of integers; the array may be a memory map.

    Args:
        values: integers of all rows, concatenated (V,).
        starts: start of each row in `values`, and the end of the last (N + 1,).
        full_lengths: length of each row before truncation (N,).
        context: maximum length of a row in a batch.
        suffix: last integers of every row, which truncated rows keep.
        size: bytes of the raw text of `values`; 0 if unknown.
        types: token type of each integer (V,); None if all are 0.
    """

    def __init__(
        self,
        values: np.ndarray,
        starts: np.ndarray,
        full_lengths: np.ndarray,
        padding: int,
        context: int,
        suffix: tuple[int, ...] = (),
        size: int = 0,
        types: np.ndarray | None = None,
    ):
        self.values, self.starts, self.full_lengths, self.padding = values, starts, full_lengths, padding
        self.context, self.suffix, self.size = context, np.array(suffix, dtype=np.int64), size
        self.types = types

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and maximum length of a row."""
        return len(self), self.context

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the rows in a batch (N,)."""
        return np.minimum(np.diff(self.starts), self.context)

    @property
    def tokens(self) -> int:
        """Total length of all rows."""
        return int(self.lengths.sum())

    @property
    def bytes_per_token(self) -> float:
        """Bytes of raw text per token, including special tokens; 0 if unknown."""
        return self.size / len(self.values) if len(self.values) else 0.0

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return padded rows (B, T) and the mask of valid positions (B, T); None if all are valid.

        With token types, the mask is uint8: 1 + the token type of a valid position, and 0 for padding.
        """
        rows = numbers(rows, len(self))
        starts = self.starts[rows]
        stored = self.starts[rows + 1] - starts
        lengths = np.minimum(stored, self.context)
        longest = max(1, int(lengths.max(initial=0)))
        columns = np.arange(longest)
        valid = columns < lengths[:, None]
        index = np.where(valid, starts[:, None] + columns, 0)
        x = np.full(valid.shape, self.padding, dtype=np.int64)
        if len(self.values):
            x = np.where(valid, self.values[index], x)
        if len(self.suffix) and (truncated := stored > self.context).any():
            x[truncated, self.context - len(self.suffix) : self.context] = self.suffix
        if self.types is not None:
            return torch.from_numpy(x), torch.from_numpy(np.where(valid, self.types[index] + 1, 0).astype(np.uint8))
        return torch.from_numpy(x), None if valid.all() else torch.from_numpy(valid)


class Packed(PaddedRows):
    """Blocks of `block` positions of the concatenated rows, without padding.

    The first block starts at `offset`, and blocks wrap around at the end; a loader draws a new offset every epoch.

    Args:
        block: length of a block, at most that of all rows.
        separate: whether to return document numbers, which restrict attention to the same row.
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
        """Number of blocks, and length of a block."""
        return len(self), self.block

    @property
    def tokens(self) -> int:
        """Total length of all blocks."""
        return len(self) * self.block

    def redraw(self, generator: torch.Generator) -> None:
        """Draw a new offset of the blocks."""
        self.offset = int(torch.randint(self.block, (), generator=generator))

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return blocks (B, T) and, with `separate`, document numbers (B, T) from 1 in each block."""
        blocks = numbers(rows, len(self))
        index = blocks[:, None] * self.block + self.offset + np.arange(self.block)
        index %= max(1, len(self.rows.values))
        x = torch.from_numpy(self.rows.values[index].astype(np.int64))
        if not self.separate:
            return x, None
        document = np.searchsorted(self.rows.starts, index, side="right")
        changes = np.diff(document, axis=1, prepend=document[:, :1]) != 0
        return x, torch.from_numpy(1 + changes.cumsum(1))


class PackedRows(PaddedRows):
    """Blocks of at most `context` positions, each with one or more complete rows.

    Rows are assigned to blocks by decreasing length, each to the block that it fills best (best-fit decreasing).

    Args:
        rows: rows, truncated to their context.
        blocks: row numbers of each block, as from `assign_blocks`.
    """

    def __init__(self, rows: Ragged, blocks: list[np.ndarray]):
        self.rows, self.blocks = rows, blocks
        self.row_lengths = rows.lengths  # which Ragged computes at each access
        self.tokens, self.bytes_per_token = int(self.row_lengths.sum()), rows.bytes_per_token

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of blocks, and maximum length of a block."""
        return len(self), self.rows.context

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return padded blocks (B, T), and the document number of each position from 1, 0 for padding (B, T)."""
        blocks = [self.blocks[number] for number in numbers(rows, len(self))]
        chosen = np.concatenate(blocks)
        lengths = self.row_lengths[chosen]
        ends = lengths.cumsum()
        sizes = np.array([self.row_lengths[block].sum() for block in blocks])
        valid = np.arange(max(1, sizes.max())) < sizes[:, None]
        x, document = np.full(valid.shape, self.rows.padding, dtype=np.int64), np.zeros(valid.shape, dtype=np.int64)
        index = np.arange(lengths.sum()) + np.repeat(self.rows.starts[chosen] - (ends - lengths), lengths)
        x[valid] = self.rows.values[index]
        document[valid] = np.repeat(np.concatenate([np.arange(len(block)) for block in blocks]) + 1, lengths)
        return torch.from_numpy(x), torch.from_numpy(document)


class Pairs(PaddedRows):
    """Pairs of rows: the first rows of all pairs, then the second ones.

    Args:
        rows: rows (2N) of which rows n and N + n are a pair.
        ratings: whether the first row of each pair is desirable (N,), if it is rated.
    """

    def __init__(self, rows: Ragged, ratings: Tensor | None = None):
        self.rows, self.tokens, self.ratings = rows, rows.tokens, ratings
        first, second = rows.lengths.reshape(2, -1)
        self.lengths = np.maximum(first, second)

    def __len__(self) -> int:
        return len(self.rows) // 2

    @property
    def shape(self) -> tuple[int, int]:
        """Number of pairs, and maximum length of a row."""
        return len(self), self.rows.context

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return padded rows (2B, T), first and then second ones, and their mask (2B, T); None if all are valid."""
        first = numbers(rows, len(self))
        return self.rows.padded(np.concatenate([first, first + len(self)]))


def assign_blocks(lengths: np.ndarray, block: int) -> list[np.ndarray]:
    """Return the row numbers of each block, by best-fit decreasing, for rows of these lengths (N,), at most `block`."""
    free: list[tuple[int, int]] = []  # room and number of the blocks that are not full, sorted
    blocks: list[list[int]] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        index = bisect.bisect_left(free, (length, -1))
        if index < len(free):
            room, number = free.pop(index)
        else:
            room, number = block, len(blocks)
            blocks.append([])
        blocks[number].append(row)
        bisect.insort(free, (room - length, number))
    return [np.sort(np.array(rows)) for rows in blocks]


def numbers(rows: Rows, count: int) -> np.ndarray:
    """Return the numbers of rows (B,), of `count` rows."""
    return np.arange(*rows.indices(count)) if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows))


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
        rows = numbers(rows, len(self))
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        columns = np.arange(max(1, int(lengths.max(initial=0))))
        valid = columns < lengths[:, None]
        x = np.zeros((*valid.shape, *self.values.shape[1:]), dtype=self.values.dtype)
        x[valid] = self.values[(starts[:, None] + columns)[valid]]
        return torch.from_numpy(x), None if valid.all() else torch.from_numpy(valid)
