"""Stem for speech: log-mel frames to tokens."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.backbone.stem import Stem
from warmstart.core.errors import UserError
from warmstart.core.ranges import Odd, PositiveInt
from warmstart.core.spec import Spec


class FrameStem(Stem):
    """Two convolutions over time and frequency, then a convolutional position embedding.

    The first two are those of VGG-like front ends of speech transformers (Mohamed et al. 2019, "Transformers with
    convolutional context for ASR"), the last is the positional convolution of wav2vec 2.0 (Baevski et al. 2020).

    Args:
        spec: examples of (T, frames, mels).
        width: width of a token.
        channels: channels of the convolutions over time and frequency.
        kernel_size: kernel size of the positional convolution; odd.
        groups: groups of the positional convolution.
    """

    modalities: ClassVar = frozenset({"speech"})
    hides: ClassVar = True

    def __init__(
        self, spec: Spec, width: int, channels: PositiveInt = 32, kernel_size: Odd = 15, groups: PositiveInt = 16
    ):
        super().__init__()
        if len(spec.shape) != 3:
            raise UserError("backbone.stem: FrameStem needs spectrograms, but the preprocessor returns waveforms")
        self.positions, self.frames, self.mels = spec.shape
        if width % groups:
            raise UserError(f"backbone.width={width} is not a multiple of backbone.stem.groups={groups}")
        self.target_size = self.frames * self.mels
        self.mask_token = nn.Parameter(torch.zeros(self.frames, self.mels))  # replaces hidden positions
        self.first = nn.Conv2d(1, channels, 3, stride=(1, 2), padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=(self.frames, 2), padding=1)
        frequencies = math.ceil(self.mels / 4)
        self.project = nn.Linear(channels * frequencies, width)
        self.position = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=groups)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, T, frames, mels) to (B, T, D); padding is set to zero before every convolution."""
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
        """Replace the frames at the hidden positions (B, T) by learned ones."""
        return torch.where(hidden[:, :, None, None], self.mask_token.to(x.dtype), x)

    def targets(self, x: Tensor) -> Tensor:
        """Return the frames of each position: (B, T, frames, mels) to (B, T, frames * mels)."""
        return x.flatten(2)

    def assemble(self, targets: Tensor) -> Tensor:
        return targets.unflatten(2, (self.frames, self.mels))

    def maskable(self, x: Tensor) -> Tensor:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def word_ids(self, x: Tensor) -> Tensor:
        """Return the number of each position's span of 5 positions (B, T); single frames are too easy to predict."""
        return (torch.arange(x.shape[1], device=x.device) // 5).expand(len(x), -1)
