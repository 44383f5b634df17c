"""Each example of a batch mixed with another of it, by a share drawn per example, on the device they are on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta

from warmstart.core.batch import Batch


def mixed(batch: Batch, mixup: float, cutmix: float) -> Batch:
    """Scaled examples (B, ...) mixed with partners, which are the batch in random order; see `Batch` for the targets.

    mixup is a weighted mean of two examples (Zhang et al. 2018, https://arxiv.org/abs/1710.09412), cutmix puts a
    rectangle of the partner into an image (Yun et al. 2019, https://arxiv.org/abs/1905.04899). Where both are on, one
    of them is drawn for each example.

    Args:
        batch: examples with targets; for cutmix, images (B, C, H, W).
        mixup: alpha of the Beta distribution of an example's share; 0 is off.
        cutmix: the same for the share of an image's area.
    """
    x = batch.x
    order = torch.randperm(len(x), device=x.device)
    keep = _shares(x, mixup) if mixup else _outside(x, cutmix)
    if mixup and cutmix:
        is_cut = torch.rand(len(x), device=x.device) < 0.5
        keep = torch.where(is_cut.view(-1, 1, 1, 1), _outside(x, cutmix), keep)
    return Batch(x[order].lerp(x, keep.to(x.dtype)), batch.y, batch.mask, batch.y[order], keep.flatten(1).mean(1))


def _shares(x: Tensor, alpha: float) -> Tensor:
    """One share for each example, in as many dimensions as x has: (B, 1, ...)."""
    alphas = torch.full((len(x), *[1] * (x.ndim - 1)), float(alpha), device=x.device)
    return Beta(alphas, alphas, validate_args=False).sample()


def _outside(x: Tensor, alpha: float) -> Tensor:
    """0 in a rectangle of each image, 1 elsewhere: (B, 1, H, W); at the edges the rectangle is cut off."""
    side = (1 - _shares(x, alpha).view(-1, 1)).sqrt()

    def along(length: int) -> Tensor:
        half = (side * length).floor().div(2, rounding_mode="floor")
        center = torch.randint(length, side.shape, device=x.device)
        places = torch.arange(length, device=x.device)
        return (places >= center - half) & (places < center + half)

    rows, columns = along(x.shape[2]), along(x.shape[3])
    return 1 - (rows[:, None, :, None] & columns[:, None, None, :]).float()
