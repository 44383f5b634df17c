"""Mixup and CutMix: each example of a batch is mixed with another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Beta

from warmstart.core.batch import Batch
from warmstart.core.protocols import Transform
from warmstart.core.ranges import PositiveFloat


class Mixing(Transform):
    """Base class of transforms that mix scaled examples and their targets with weights from Beta(alpha, alpha)."""

    def __init__(self, alpha: PositiveFloat):
        self.alpha = float(alpha)

    def weights(self, x: Tensor) -> Tensor:
        """Return the weight of each value of x (B, ...), broadcastable to x; the partner has the rest."""
        raise NotImplementedError


class Mixup(Mixing):
    """Mix two examples linearly (Zhang et al. 2018, https://arxiv.org/abs/1710.09412)."""

    inputs = frozenset({"image", "vector"})

    def weights(self, x: Tensor) -> Tensor:
        return _draw_weights(x, self.alpha)


class CutMix(Mixing):
    """Replace a rectangle by that of another image (Yun et al. 2019, https://arxiv.org/abs/1905.04899)."""

    inputs = frozenset({"image"})

    def weights(self, x: Tensor) -> Tensor:
        """Return 0 in a rectangle of each image, clipped at the border, and 1 elsewhere: (B, 1, H, W)."""
        side = (1 - _draw_weights(x, self.alpha).view(-1, 1)).sqrt()

        def along(length: int) -> Tensor:
            half = (side * length).floor().div(2, rounding_mode="floor")
            center = torch.randint(length, side.shape, device=x.device)
            positions = torch.arange(length, device=x.device)
            return (positions >= center - half) & (positions < center + half)

        rows, columns = along(x.shape[2]), along(x.shape[3])
        return 1 - (rows[:, None, :, None] & columns[:, None, None, :]).float()


def mixed(batch: Batch, transforms: Sequence[Mixing]) -> Batch:
    """Mix scaled examples (B, ...) with the batch in random order; see `Batch` for the targets.

    The transform is drawn uniformly per example.
    """
    x = batch.x
    order = torch.randperm(len(x), device=x.device)
    weights = transforms[0].weights(x)
    for number, transform in enumerate(transforms[1:], start=2):
        drawn = torch.rand(len(x), device=x.device) < 1 / number
        weights = torch.where(drawn.view(-1, *[1] * (x.ndim - 1)), transform.weights(x), weights)
    return Batch(x[order].lerp(x, weights.to(x.dtype)), batch.y, batch.mask, batch.y[order], weights.flatten(1).mean(1))


def _draw_weights(x: Tensor, alpha: float) -> Tensor:
    """Draw one weight per example, with the number of dimensions of x: (B, 1, ...)."""
    alphas = torch.full((len(x), *[1] * (x.ndim - 1)), alpha, device=x.device)
    return Beta(alphas, alphas, validate_args=False).sample()
