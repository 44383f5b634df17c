"""Random transforms of spectrograms (B, T, frames, mels), drawn per example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.protocols import Transform
from warmstart.core.ranges import OpenUnitInterval, PositiveInt

MASKS = 2  # per example and axis


class Spectral(Transform):
    """Base class of transforms of spectrograms."""

    inputs = frozenset({"speech"})
    spectral = True


class VocalTractLengthPerturbation(Spectral):
    """Scale the mel axis by a factor from 1 - strength to 1 + strength (Jaitly and Hinton 2013)."""

    def __init__(self, strength: OpenUnitInterval):
        self.strength = strength

    def __call__(self, x: Tensor) -> Tensor:
        factor = 1 + self.strength * (2 * torch.rand(len(x), 1, device=x.device) - 1)
        return _resampled(x, torch.ones_like(factor), factor)


class TimeStretch(Spectral):
    """Speed up by a factor from 1 to 1 + strength without a change of pitch; compare Ko et al. 2015."""

    def __init__(self, strength: OpenUnitInterval):
        self.strength = strength

    def __call__(self, x: Tensor) -> Tensor:
        factor = 1 + self.strength * torch.rand(len(x), 1, device=x.device)
        return _resampled(x, factor, torch.ones_like(factor))


class FrequencyMasks(Spectral):
    """Set up to `width` adjacent mel bands to 0, twice: SpecAugment (Park et al. 2019)."""

    def __init__(self, width: PositiveInt):
        self.width = width

    def __call__(self, x: Tensor) -> Tensor:
        return x * ~_spans(len(x), x.shape[3], self.width, x.device)[:, None, None, :]


class TimeMasks(Spectral):
    """Set up to `width` adjacent positions, at most a fifth of all, to 0, twice: SpecAugment."""

    def __init__(self, width: PositiveInt):
        self.width = width

    def __call__(self, x: Tensor) -> Tensor:
        return x * ~_spans(len(x), x.shape[1], min(self.width, x.shape[1] // 5), x.device)[:, :, None, None]


def _resampled(x: Tensor, time: Tensor, mel: Tensor) -> Tensor:
    """Resample spectrograms at positions and mels multiplied by factors (B, 1); values beyond the end are 0."""
    batch, length, frames, mels = x.shape
    rows = torch.linspace(0, 2, length * frames, device=x.device) * time - 1
    columns = (torch.linspace(0, 2, mels, device=x.device) * mel).clamp(max=2) - 1
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=-1)
    flat = x.reshape(batch, 1, length * frames, mels)
    return F.grid_sample(flat, grid, align_corners=True).view(x.shape)


def _spans(batch: int, length: int, most: int, device: torch.device) -> Tensor:
    """Return masks (B, length) of random spans with 0 to `most` positions each."""
    width = torch.stack([torch.randint(0, most + 1, (batch, 1), device=device) for _ in range(MASKS)])
    drawn = torch.stack([torch.rand(batch, 1, device=device) for _ in range(MASKS)])
    start = (drawn * (length - width + 1)).long()
    position = torch.arange(length, device=device)
    return ((position >= start) & (position < start + width)).any(0)
