"""Random changes to spectrograms (B, T, frames, mels), drawn per example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.protocols import Transform
from warmstart.core.ranges import Count, OpenUnitInterval

MASKS = 2  # of each kind, per example


class Spectral(Transform):
    """A change to spectrograms."""

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
    """Play at 1 to 1 + strength times the speed, as the speed perturbation of Ko et al. 2015, but for the pitch."""

    def __init__(self, strength: OpenUnitInterval):
        self.strength = strength

    def __call__(self, x: Tensor) -> Tensor:
        factor = 1 + self.strength * torch.rand(len(x), 1, device=x.device)
        return _resampled(x, factor, torch.ones_like(factor))


class FrequencyMasks(Spectral):
    """Set up to `width` neighbouring mel bands to 0, twice: SpecAugment (Park et al. 2019)."""

    def __init__(self, width: Count):
        self.width = width

    def __call__(self, x: Tensor) -> Tensor:
        return x * ~_runs(len(x), x.shape[3], self.width, x.device)[:, None, None, :]


class TimeMasks(Spectral):
    """Set up to `width` neighbouring positions to 0, twice, but no more than a fifth of all: SpecAugment."""

    def __init__(self, width: Count):
        self.width = width

    def __call__(self, x: Tensor) -> Tensor:
        return x * ~_runs(len(x), x.shape[1], min(self.width, x.shape[1] // 5), x.device)[:, :, None, None]


def _resampled(x: Tensor, time: Tensor, mel: Tensor) -> Tensor:
    """Spectrograms read at positions and at mels multiplied by factors (B, 1); silence beyond the end."""
    batch, length, frames, mels = x.shape
    rows = torch.linspace(0, 2, length * frames, device=x.device) * time - 1
    columns = (torch.linspace(0, 2, mels, device=x.device) * mel).clamp(max=2) - 1
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=-1)
    flat = x.reshape(batch, 1, length * frames, mels)
    return F.grid_sample(flat, grid, align_corners=True).view(x.shape)


def _runs(batch: int, length: int, most: int, device: torch.device) -> Tensor:
    """Random runs of positions (B, length), each of 0 to `most`."""
    width = torch.randint(0, most + 1, (MASKS, batch, 1), device=device)
    start = (torch.rand(MASKS, batch, 1, device=device) * (length - width + 1)).long()
    position = torch.arange(length, device=device)
    return ((position >= start) & (position < start + width)).any(0)
