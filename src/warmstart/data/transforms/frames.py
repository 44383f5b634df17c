"""Random changes to spectrograms (B, T, frames, mels), drawn per example, on the device they are on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MASKS = 2  # of each kind, per example


def warped(x: Tensor, warp: float, stretch: float) -> Tensor:
    """Bands moved by a factor from 1 - warp to 1 + warp, and time run faster by a factor from 1 to 1 + stretch.

    The former is vocal tract length perturbation (Jaitly and Hinton 2013) on the mel scale, the latter the speed
    perturbation of Ko et al. 2015, but for the pitch.
    """
    batch, length, frames, mels = x.shape
    ends = torch.tensor([stretch, 2 * warp], device=x.device)
    scale = 1 + ends * torch.rand(batch, 2, device=x.device) - torch.tensor([0, warp], device=x.device)
    time = torch.linspace(0, 2, length * frames, device=x.device) * scale[:, :1] - 1
    band = (torch.linspace(0, 2, mels, device=x.device) * scale[:, 1:]).clamp(max=2) - 1
    grid = torch.stack(torch.broadcast_tensors(band[:, None, :], time[:, :, None]), dim=-1)
    flat = x.reshape(batch, 1, length * frames, mels)
    return F.grid_sample(flat, grid, align_corners=True).view(x.shape)


def without_bands(x: Tensor, most: int) -> Tensor:
    """Up to `most` neighbouring bands set to 0, twice: SpecAugment (Park et al. 2019)."""
    return x * ~_runs(len(x), x.shape[3], most, x.device)[:, None, None, :]


def without_gaps(x: Tensor, most: int) -> Tensor:
    """Up to `most` neighbouring positions set to 0, twice, but no more than a fifth of all: SpecAugment."""
    return x * ~_runs(len(x), x.shape[1], min(most, x.shape[1] // 5), x.device)[:, :, None, None]


def _runs(batch: int, length: int, most: int, device: torch.device) -> Tensor:
    """Random runs of places (B, length), each of 0 to `most`."""
    width = torch.randint(0, most + 1, (MASKS, batch, 1), device=device)
    start = (torch.rand(MASKS, batch, 1, device=device) * (length - width + 1)).long()
    place = torch.arange(length, device=device)
    return ((place >= start) & (place < start + width)).any(0)
