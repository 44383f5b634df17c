"""The part of a batch that a process of a distributed training computes: its random numbers, and the rows of all parts.

Every process knows the global batch of a step. It computes a part of the rows, with the random numbers that one process
would draw for these rows, so that results do not depend on the number of processes, except for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from warmstart.core.batch import Part
from warmstart.distributed.draws import Draws
from warmstart.distributed.processes import part_of, rank, world

_draws: Draws | None = None


@contextlib.contextmanager
def computing(part: Part | None) -> Iterator[None]:
    """Draw random numbers for the rows of a part inside the context, and let `gathered` return those of all parts."""
    global _draws
    if part is None:
        yield
    elif _draws is None:
        _draws = Draws(part)
        try:
            with _draws:
                yield
        finally:
            _draws = None
    else:
        before, _draws.part = _draws.part, part
        try:
            yield
        finally:
            _draws.part = before


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Draw the same random numbers in all processes inside the context, such as those of parameters."""
    if _draws is None:
        yield
        return
    before, _draws.part = _draws.part, None
    try:
        yield
    finally:
        _draws.part = before


def current() -> Part | None:
    """Return the part that is computed now; None if this process computes complete batches."""
    return None if _draws is None else _draws.part


def gathered(x: Tensor, part: Part | None = None) -> Tensor:
    """Return the rows of the global batch (K * total, ...), given those of a part, by default the current one.

    A loss of all rows that every process computes has, averaged over the processes, the gradients of that loss.
    """
    part = part or current()
    if part is None:
        return x
    parts = [part_of(part.total, number, world()) for number in range(world())]
    own, most = part.stop - part.start, max(one.stop - one.start for one in parts)
    views = x.unflatten(0, (-1, own)).transpose(0, 1)  # (rows, K, ...)
    padding = views.new_zeros(most - own, *views.shape[1:])
    found = AllGather.apply(torch.cat([views, padding]))
    kept = [rows[: one.stop - one.start] for one, rows in zip(parts, found) if not one.padding]
    return torch.cat(kept).transpose(0, 1).flatten(0, 1)


class AllGather(torch.autograd.Function):
    """Stack the tensors of all processes, which have the same shape; the gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        found = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(found, x)
        return torch.stack(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[rank()]
