"""Stems: how each modality becomes a row of tokens, and what a hidden token should be rebuilt into."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.contracts import Spec, UserError


class FeatureStem(nn.Module):
    """One token per feature of a vector: its value times a learned direction, plus a learned offset.

    The numerical tokenizer of Gorishniy et al. 2021, "Revisiting Deep Learning Models for Tabular Data".
    """

    modalities: ClassVar = frozenset({"vector"})

    def __init__(self, spec: Spec, width: int):
        super().__init__()
        (self.positions,) = spec.shape
        self.target_size = 1
        self.direction = nn.Parameter(torch.randn(self.positions, width) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) to (B, F, D)."""
        return x[:, :, None] * self.direction

    def targets(self, x: Tensor) -> Tensor:
        """The value of each feature, (B, F) to (B, F, 1)."""
        return x[:, :, None]

    def assemble(self, targets: Tensor) -> Tensor:
        """The inverse of `targets`."""
        return targets[:, :, 0]


class PatchStem(nn.Module):
    """One token per square patch of an image, as in ViT (Dosovitskiy et al. 2021)."""

    modalities: ClassVar = frozenset({"image"})

    def __init__(self, spec: Spec, width: int, patch: int = 4):
        super().__init__()
        channels, height, columns = spec.shape
        if patch < 1 or height % patch or columns % patch:
            raise UserError(f"backbone.stem.patch={patch} does not divide images of {height} x {columns} pixels")
        self.patch, self.channels = patch, channels
        self.rows, self.columns = height // patch, columns // patch
        self.positions = self.rows * self.columns
        self.target_size = channels * patch * patch
        self.project = nn.Linear(self.target_size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, T, D)."""
        return self.project(self.targets(x))

    def targets(self, x: Tensor) -> Tensor:
        """The pixels of each patch, (B, C, H, W) to (B, T, C * patch * patch)."""
        x = x.reshape(len(x), self.channels, self.rows, self.patch, self.columns, self.patch)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(len(x), self.positions, self.target_size)

    def assemble(self, targets: Tensor) -> Tensor:
        """The inverse of `targets`."""
        x = targets.reshape(len(targets), self.rows, self.columns, self.channels, self.patch, self.patch)
        height, width = self.rows * self.patch, self.columns * self.patch
        return x.permute(0, 3, 1, 4, 2, 5).reshape(len(targets), self.channels, height, width)
