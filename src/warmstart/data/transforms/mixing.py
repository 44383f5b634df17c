"""Gaussian noise, and examples of a batch mixed with others of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Beta

from warmstart.core.batch import Batch
from warmstart.core.protocols import Transform
from warmstart.core.ranges import Positive


class Noise(Transform):
    """Add Gaussian noise of standard deviation `std`, in standard deviations of the data."""

    inputs = frozenset({"image", "speech", "vector"})

    def __init__(self, std: Positive):
        self.std = std

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x)


class Mixing(Transform):
    """A way to mix scaled examples and their targets; `alpha` of the Beta distribution gives an example's share."""

    def __init__(self, alpha: Positive):
        self.alpha = float(alpha)

    def kept(self, x: Tensor) -> Tensor:
        """The share of each value of x (B, ...) that is kept, broadcastable to x."""
        raise NotImplementedError


class Mixup(Mixing):
    """A weighted mean of two examples (Zhang et al. 2018, https://arxiv.org/abs/1710.09412)."""

    inputs = frozenset({"image", "vector"})

    def kept(self, x: Tensor) -> Tensor:
        return _shares(x, self.alpha)


class CutMix(Mixing):
    """A rectangle of another image in each (Yun et al. 2019, https://arxiv.org/abs/1905.04899)."""

    inputs = frozenset({"image"})

    def kept(self, x: Tensor) -> Tensor:
        """0 in a rectangle of each image, 1 elsewhere: (B, 1, H, W); at the edges the rectangle is cut off."""
        side = (1 - _shares(x, self.alpha).view(-1, 1)).sqrt()

        def along(length: int) -> Tensor:
            half = (side * length).floor().div(2, rounding_mode="floor")
            center = torch.randint(length, side.shape, device=x.device)
            positions = torch.arange(length, device=x.device)
            return (positions >= center - half) & (positions < center + half)

        rows, columns = along(x.shape[2]), along(x.shape[3])
        return 1 - (rows[:, None, :, None] & columns[:, None, None, :]).float()


def mixed(batch: Batch, ways: Sequence[Mixing]) -> Batch:
    """Scaled examples (B, ...) mixed with partners, which are the batch in random order; see `Batch` for the targets.

    One of the ways is drawn for each example, all with the same probability.
    """
    x = batch.x
    order = torch.randperm(len(x), device=x.device)
    keep = ways[0].kept(x)
    for number, way in enumerate(ways[1:], start=2):
        drawn = torch.rand(len(x), device=x.device) < 1 / number
        keep = torch.where(drawn.view(-1, *[1] * (x.ndim - 1)), way.kept(x), keep)
    return Batch(x[order].lerp(x, keep.to(x.dtype)), batch.y, batch.mask, batch.y[order], keep.flatten(1).mean(1))


def _shares(x: Tensor, alpha: float) -> Tensor:
    """One share for each example, in as many dimensions as x has: (B, 1, ...)."""
    alphas = torch.full((len(x), *[1] * (x.ndim - 1)), alpha, device=x.device)
    return Beta(alphas, alphas, validate_args=False).sample()
