"""Encode rows, and load them by batch, without Python code per sample; a loader can be resumed within an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warmstart.core.batch import Batch, Part
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor
from warmstart.data.storage.ragged import PaddedRows, Ragged
from warmstart.distributed.processes import own_part, rank, world

HELD_OUT_POSITIONS = 2**15  # limit of memory: positions of a held-out batch, with padding, whose tokens have targets
POOL = 50  # batches whose rows are sorted by length together


class GatherLoader:
    """Yield batches of at most `batch_size` rows.

    The order of epoch e is a function of (seed, e), and `state_dict` has the position in it, so an interrupted run
    resumes with the next batch. Without a seed, rows are not shuffled. The last batch may be smaller. In training, a
    single remaining row is added to the previous batch, because batch norm and contrastive losses need two rows. If
    several processes train, each has a part of every training batch. Without a seed, processes with `is_divided` have
    different batches.
    With `repeat`, all epochs have the order of the first.

    Variable-length rows are batched by similar length and padded to the longest row of the batch.

    Args:
        x: a tensor (N, ...), or `PaddedRows`.
        y: targets with `index_select`, or None.
        seed: seed of the order; None for the order of the rows.
    """

    def __init__(self, x: Any, y: Any, batch_size: int, seed: int | None = None):
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = -1
        self.position = 0
        self.resuming = self.repeat = False
        self.is_divided = seed is not None  # whether several processes share the rows
        self.unlabelled: Unlabelled | None = None  # adds unlabelled rows to each training batch
        self.reference: Tensor | None = None  # values of each row (N, ...) under the initial weights

    def __len__(self) -> int:
        if self.seed is not None:
            return batches(len(self.x), self.batch_size)
        count = math.ceil(len(self.x) / self.batch_size)
        return math.ceil((count - rank()) / world()) if self.is_divided else count

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            first, step = (rank(), world()) if self.is_divided else (0, 1)
            for start in range(first * self.batch_size, len(self.x), step * self.batch_size):
                yield self.batch(slice(start, min(start + self.batch_size, len(self.x))))
            return
        if not self.resuming or self.position >= len(self.x):
            self.epoch, self.position = 0 if self.repeat else self.epoch + 1, 0
        self.resuming = False
        order = self.order(torch.Generator().manual_seed(self.seed + self.epoch))
        while self.position < len(self.x):
            left = len(self.x) - self.position
            rows = order[self.position : self.position + (left if left == self.batch_size + 1 > 2 else self.batch_size)]
            number = self.epoch * len(self) + self.position // self.batch_size
            self.position += len(rows)
            batch = self.batch(rows, own_part(len(rows)) if self.is_divided else None)
            if self.unlabelled is not None:
                batch.unlabelled = self.unlabelled.batch(number)
            yield batch

    def batch(self, rows: slice | Tensor, part: Part | None = None) -> Batch:
        """Return the batch of these rows, or a part of it."""
        batch = take(self.x, self.y, rows, part)
        if self.reference is not None:
            batch.reference = self.reference[rows] if part is None else part.of(self.reference[rows])
        return batch

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the row indices of an epoch (N,); variable-length rows are sorted by length within pools."""
        order = torch.randperm(len(self.x), generator=generator)
        if not isinstance(self.x, PaddedRows):
            return order
        self.x.redraw(generator)
        if self.x.lengths is None:
            return order
        lengths = torch.from_numpy(self.x.lengths)
        pools = [pool[lengths[pool].argsort()] for pool in order.split(POOL * self.batch_size)]
        batches = list(torch.cat(pools).split(self.batch_size))
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return torch.cat([*(batches[number] for number in shuffled), *last])

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its rows already returned."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self.resuming = self.position > 0


class Unlabelled:
    """Batches of `size` rows without targets; the n-th batch is a function of the seed and n.

    When all full batches of an order are used, rows are shuffled again.

    Args:
        x: a tensor (N, ...), or `PaddedRows`.
        size: rows of a batch; all, if there are fewer.
        seed: seed of the order.
    """

    def __init__(self, x: Any, size: int, seed: int):
        self.size = min(size, len(x))
        self.rows = GatherLoader(x, None, self.size, seed)
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.long)

    def batch(self, number: int) -> Batch:
        """Return the batch with this number, from 0."""
        epoch, index = divmod(number, len(self.rows.x) // self.size)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.rows.order(torch.Generator().manual_seed(self.rows.seed + epoch))
        return take(self.rows.x, None, self.order[index * self.size : (index + 1) * self.size], own_part(self.size))


def batches(rows: int, size: int) -> int:
    """Return the number of training batches of an epoch; a single remaining row is added to the previous batch."""
    full, rest = divmod(rows, size)
    return full + (rest > 0) - (rest == 1 and full > 0 and size > 1)


def held_out_rows(most: int, x: Any, y: Any) -> int:
    """Return the number of rows of a held-out batch: `most`, or fewer if rows of tokens with targets are long."""
    if not (isinstance(x, Ragged) and isinstance(y, PaddedRows)):
        return most
    return max(1, min(most, HELD_OUT_POSITIONS // int(x.lengths.max(initial=1))))


def take(x: Any, y: Any, rows: slice | Tensor, part: Part | None = None) -> Batch:
    """Return the batch of these rows, or a part of it, padded as the complete batch."""
    if isinstance(x, PaddedRows):
        inputs, mask = x.padded(rows)
        rows = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        rating = None if x.ratings is None else x.ratings[rows]
        batch = Batch(inputs, None if y is None else y.index_select(0, rows), mask, rating=rating)
        return batch if part is None else x.part(batch, rows, part)
    if part is not None:
        own = take(x, y, part.of(rows))
        own.part = part
        return own
    if isinstance(rows, slice):
        return Batch(x[rows], None if y is None else y[rows])
    return Batch(x.index_select(0, rows), None if y is None else y.index_select(0, rows))


ALIGNED = (
    "span",
    "tags",
    "text",
    "sequence",
    "completion",
    "pairs",
    "rated",
)  # targets that depend on the tokens or frames: encoded together with the inputs
DTYPES = {"value": np.float64, "categories": np.float32}  # values are cast to float32 after standardization


def encode(preprocessor: Preprocessor, x: Any, target: str | None, y: Any = None) -> tuple[Any, Any]:
    """Return encoded inputs and targets of a kind; the targets may be None."""
    if target in ALIGNED:
        return preprocessor.align(x, y, target)
    return preprocessor.encode(x), None if y is None or target is None else torch.from_numpy(targets(target, y))


def targets(kind: str, y: Any) -> np.ndarray:
    """Copy targets (N, ...) with the dtype of their kind."""
    return np.array(y, dtype=DTYPES.get(kind))


def moments(y: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each column of targets (N, K); 1 for constant columns.

    Raises:
        UserError: a target is not a finite number, or too large to compute with.
    """
    y = y.astype(np.float64)
    center = y[0] + (y - y[0]).mean(0)  # exact for a constant target
    largest = np.abs(y - center).max(0)
    largest = np.where(largest > 0, largest, 1.0)
    spread = largest * ((y - center) / largest).std(0)
    if not (np.isfinite(center) & np.isfinite(spread)).all():
        raise UserError("the training targets are not all finite numbers, or too large to compute with: check the data")
    return tuple(center.tolist()), tuple(np.where(spread > 0, spread, 1.0).tolist())
