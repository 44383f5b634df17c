"""Preprocessor of vectors, which standardizes each feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from warmstart.core import protocols
from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.data.readers.table import Dialect, read_numbers


class Preprocessor(protocols.Preprocessor):
    """Raw inputs are float arrays (N, F); constant features are centered only."""

    def __init__(self, mean: list[float] | None = None, std: list[float] | None = None):
        self.dialect = Dialect()
        if mean is not None:
            self.mean, self.std = torch.tensor(mean), torch.tensor(std)

    def fit(self, x: np.ndarray) -> None:
        std = x.std(0)
        self.mean = torch.from_numpy(x.mean(0).astype(np.float32))
        self.std = torch.from_numpy(np.where(std > 0, std, 1).astype(np.float32))

    def encode(self, x: np.ndarray) -> Tensor:
        """Convert to a float tensor (N, F)."""
        if x.shape[1] != len(self.mean):
            raise UserError(f"the saved preprocessor takes {len(self.mean)} features; this data has {x.shape[1]}")
        return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x.device)).mul_(1 / self.std.to(x.device))

    def read(self, path: str) -> Inputs:
        """Read a table of numbers with one row per example."""
        return read_numbers(path, len(self.mean), self.dialect)

    def state(self) -> dict[str, Any]:
        return {"kind": "vector", "mean": self.mean.tolist(), "std": self.std.tolist()}
