"""The processes of a distributed training, which is one process if no process group is initialized."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from warmstart.core.batch import Part
from warmstart.core.errors import UserError
from warmstart.distributed.tensors import full


def world() -> int:
    """Return the number of processes of this training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def own_part(total: int) -> Part | None:
    """Return the part of this process of `total` rows; None if it is the only process."""
    return part_of(total, rank(), world()) if world() > 1 else None


def part_of(total: int, number: int, count: int) -> Part:
    """Return the part of process `number` of `count` processes."""
    start, stop = total * number // count, total * (number + 1) // count
    return Part(start, stop, total) if stop > start else Part(0, 1, total, padding=True)


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()


def broadcast(value: Any) -> Any:
    """Return the value of the first process, which can be pickled."""
    found = [value]
    if world() > 1:
        dist.broadcast_object_list(found, 0)
    return found[0]


def all_values(value: Any) -> list[Any]:
    """Return the values of all processes, which can be pickled."""
    if world() == 1:
        return [value]
    found = [None] * world()
    dist.all_gather_object(found, value)
    return found


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Raise the error of one process in all processes at the end of the block, so that no process waits for it.

    Raises:
        UserError: another process had one.
        RuntimeError: another process had another error.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as found:
        if world() == 1:
            raise
        error = found
    found = all_values(None if error is None else (isinstance(error, UserError), str(error)))
    if error is not None:
        raise error
    for number, failure in enumerate(found):
        if failure is not None:
            raise (UserError if failure[0] else RuntimeError)(f"process {number}: {failure[1]}")


def of_first(value: float) -> float:
    """Return the value of the first process."""
    if world() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(found, 0)
    return float(found)


def total(value: float) -> float:
    """Return the sum of the values of all processes."""
    if world() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(found)
    return float(found)


def largest(values: Sequence[int]) -> list[int]:
    """Return the largest values of all processes; on the CPU, so that no accelerator is waited for."""
    found = torch.tensor(values)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def mean_of(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the values () of all processes with weights (), and the sum of the weights, both float64."""
    sums = torch.stack([values.double() * weights, weights.double()])
    dist.all_reduce(sums)
    return sums[0] / sums[1].clamp(min=1), sums[1]


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over the processes of tensors by name, equal in all; shards already are means."""
    found = {name: full(value) if isinstance(value, DTensor) else value / world() for name, value in tensors.items()}
    if world() > 1:
        for name, value in found.items():
            if not isinstance(tensors[name], DTensor):
                dist.all_reduce(value)
    return found
