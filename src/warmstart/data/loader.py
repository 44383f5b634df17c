"""Batches gathered whole from tensors in memory: no Python per sample, and an order that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from warmstart.contracts import Batch


class GatherLoader:
    """Yields `Batch`es of at most `batch_size` rows.

    The order of epoch e is a function of (seed, e), and the place in it is part of `state_dict`, so a run that
    stops in the middle of an epoch goes on with the very next batch. Without a seed the order is that of the rows.
    The last batch may be smaller; a single row left over in training joins the batch before it, since batch norm and
    contrastive losses can make nothing of one row. With `repeat`, every epoch is the first one again.
    """

    def __init__(self, x: Tensor, y: Tensor | None, batch_size: int, seed: int | None = None):
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = -1
        self.position = 0
        self.resuming = self.repeat = False

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.x), self.batch_size)
        joined = self.seed is not None and rest == 1 and whole > 0 and self.batch_size > 1
        return whole + (rest > 0) - joined

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            for start in range(0, len(self.x), self.batch_size):
                part = slice(start, start + self.batch_size)
                yield Batch(self.x[part], None if self.y is None else self.y[part])
            return
        if not self.resuming or self.position >= len(self.x):
            self.epoch, self.position = 0 if self.repeat else self.epoch + 1, 0
        self.resuming = False
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.x), generator=generator)
        while self.position < len(self.x):
            left = len(self.x) - self.position
            rows = order[self.position : self.position + (left if left == self.batch_size + 1 > 2 else self.batch_size)]
            self.position += len(rows)
            yield Batch(self.x.index_select(0, rows), None if self.y is None else self.y.index_select(0, rows))

    def state_dict(self) -> dict[str, int]:
        """Epoch, and rows of it already handed out."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved place."""
        self.epoch, self.position = state["epoch"], state["position"]
        self.resuming = self.position > 0
