"""Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

from warmstart.core.protocols import Transform
from warmstart.core.ranges import PositiveFloat


class Noise(Transform):
    """Add Gaussian noise of standard deviation `std`, in standard deviations of the data."""

    inputs = frozenset({"image", "speech", "vector"})

    def __init__(self, std: PositiveFloat):
        self.std = std

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x)
