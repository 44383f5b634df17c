"""The stem of speech: log-mel frames to a row of tokens."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.backbone.stem import Stem
from warmstart.core.errors import UserError
from warmstart.core.ranges import Count, Odd
from warmstart.core.spec import Spec


class FrameStem(Stem):
    """Convolutions over time and frequency, then one over the positions, which says where each is.

    The first are those of VGG-like front ends of speech transformers (Mohamed et al. 2019, "Transformers with
    convolutional context for ASR"), the last is the positional convolution of wav2vec 2.0 (Baevski et al. 2020).

    Args:
        spec: examples of (T, frames, mels).
        width: of a token.
        channels: of the convolutions over time and frequency.
        reach: positions that the convolution over positions sees; odd.
        groups: of that convolution.
    """

    modalities: ClassVar = frozenset({"speech"})
    hides: ClassVar = True

    def __init__(self, spec: Spec, width: int, channels: Count = 32, reach: Odd = 15, groups: Count = 16):
        super().__init__()
        if len(spec.shape) != 3:
            raise UserError("backbone.stem: frames are of spectrograms, and the preprocessor given makes waveforms")
        self.positions, self.frames, self.mels = spec.shape
        if width % groups:
            raise UserError(f"backbone.width={width} is not a multiple of backbone.stem.groups={groups}")
        self.target_size = self.frames * self.mels
        self.mask_token = nn.Parameter(torch.zeros(self.frames, self.mels))  # in place of what is hidden
        self.first = nn.Conv2d(1, channels, 3, stride=(1, 2), padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=(self.frames, 2), padding=1)
        bands = math.ceil(self.mels / 4)
        self.project = nn.Linear(channels * bands, width)
        self.position = nn.Conv1d(width, width, reach, padding=reach // 2, groups=groups)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, frames, mels) to (B, T, D); padding is shown as zeros to every convolution."""
        batch, length = x.shape[:2]
        valid = None if mask is None else (mask > 0).to(x.dtype)
        if valid is not None:
            x = x * valid[:, :, None, None]
        x = F.gelu(self.first(x.reshape(batch, 1, length * self.frames, self.mels)))
        if valid is not None:
            x = x * valid.repeat_interleave(self.frames, 1)[:, None, :, None]
        x = F.gelu(self.second(x)).permute(0, 2, 1, 3).flatten(2)[:, :length]
        tokens = self.project(x)
        if valid is not None:
            tokens = tokens * valid[:, :, None]
        return tokens + F.gelu(self.position(tokens.transpose(1, 2))).transpose(1, 2)

    def hide(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Learned frames in place of those at the hidden positions (B, T)."""
        return torch.where(hidden[:, :, None, None], self.mask_token.to(x.dtype), x)

    def targets(self, x: Tensor) -> Tensor:
        """The frames of each position, (B, T, frames, mels) to (B, T, frames * mels)."""
        return x.flatten(2)

    def assemble(self, targets: Tensor) -> Tensor:
        """The inverse of `targets`."""
        return targets.unflatten(2, (self.frames, self.mels))

    def maskable(self, x: Tensor) -> Tensor:
        """All positions, (B, T)."""
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def words(self, x: Tensor) -> Tensor:
        """Runs of 5 positions, (B, T): hidden one by one, a frame could be rebuilt from its neighbours."""
        return (torch.arange(x.shape[1], device=x.device) // 5).expand(len(x), -1)
