"""Tensors that are sharded over the processes, and their complete values."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def full(value: Any) -> Any:
    """Return a value with all rows if it is a sharded tensor; all processes must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def sharded_as(value: Any, parameter: Tensor) -> Any:
    """Return this process's shard of a complete value of a parameter, or another value as it is."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)
