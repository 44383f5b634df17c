"""Stems: embed each modality as tokens, and define the reconstruction targets of hidden tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.errors import UserError
from warmstart.core.ranges import PositiveInt
from warmstart.core.spec import Spec


class Stem(nn.Module):
    """Map inputs to tokens (B, T, D); has the methods of a backbone that can hide positions.

    If it `hides`, its `hide` replaces hidden positions in the input; else the transformer replaces their tokens by a
    learned mask token. If it has `has_fixed_size`, all inputs must have the size of its spec. `abilities` are added to
    those of the backbone.
    """

    modalities: ClassVar[frozenset[str]]
    abilities: ClassVar[frozenset[str]] = frozenset()
    target_kind: ClassVar[str] = "value"
    has_fixed_size: ClassVar[bool] = False
    hides: ClassVar[bool] = False
    positions: int


class ValueStem(Stem):
    """Stem for continuous inputs: every position may be hidden, independently of the others."""

    def maskable(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), self.positions, dtype=torch.bool, device=x.device)

    def word_ids(self, x: Tensor) -> Tensor:
        """Return the index of each position (B, T)."""
        return torch.arange(self.positions, device=x.device).expand(len(x), -1)


class FeatureStem(ValueStem):
    """One token per feature of a vector: its value times a learned direction.

    After the feature tokenizer of Gorishniy et al. 2021, "Revisiting Deep Learning Models for Tabular Data".
    """

    modalities: ClassVar = frozenset({"vector"})

    def __init__(self, spec: Spec, width: int):
        super().__init__()
        (self.positions,) = spec.shape
        self.target_size = 1
        self.direction = nn.Parameter(torch.randn(self.positions, width) * 0.5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, F) to (B, F, D)."""
        return x[:, :, None] * self.direction

    def targets(self, x: Tensor) -> Tensor:
        """Map (B, F) to (B, F, 1)."""
        return x[:, :, None]

    def assemble(self, targets: Tensor) -> Tensor:
        return targets[:, :, 0]


class PatchStem(ValueStem):
    """One token per square patch of an image, as in ViT (Dosovitskiy et al. 2021)."""

    modalities: ClassVar = frozenset({"image"})
    has_fixed_size: ClassVar = True

    def __init__(self, spec: Spec, width: int, patch: PositiveInt = 4):
        super().__init__()
        channels, height, columns = spec.shape
        if height % patch or columns % patch:
            raise UserError(f"backbone.stem.patch={patch} does not divide images of {height} x {columns} pixels")
        self.patch, self.channels = patch, channels
        self.rows, self.columns = height // patch, columns // patch
        self.positions = self.rows * self.columns
        self.target_size = channels * patch * patch
        self.project = nn.Linear(self.target_size, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, T, D)."""
        return self.project(self.targets(x))

    def targets(self, x: Tensor) -> Tensor:
        """Return the pixels of each patch: (B, C, H, W) to (B, T, C * patch * patch)."""
        x = x.reshape(len(x), self.channels, self.rows, self.patch, self.columns, self.patch)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(len(x), self.positions, self.target_size)

    def assemble(self, targets: Tensor) -> Tensor:
        x = targets.reshape(len(targets), self.rows, self.columns, self.channels, self.patch, self.patch)
        height, width = self.rows * self.patch, self.columns * self.patch
        return x.permute(0, 3, 1, 4, 2, 5).reshape(len(targets), self.channels, height, width)


class TextStem(Stem):
    """Token embedding; hidden tokens are replaced by the mask token of the vocabulary."""

    modalities: ClassVar = frozenset({"text"})
    abilities: ClassVar = frozenset({"token_embedding"})
    target_kind: ClassVar = "category"
    hides: ClassVar = True

    def __init__(self, spec: Spec, width: int):
        super().__init__()
        (self.positions,) = spec.shape
        self.target_size, self.mask = spec.vocabulary.size, spec.vocabulary.mask
        self.embedding = nn.Embedding(self.target_size, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("special", self._indicator(spec.vocabulary.special), persistent=False)
        self.register_buffer("joined", self._indicator(spec.vocabulary.joined), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, T) to (B, T, D)."""
        return self.embedding(x)

    def hide(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Replace the token ids (B, T) at `hidden` (B, T) by the mask token.

        Raises:
            UserError: the tokenizer has no mask token.
        """
        if self.mask is None:
            raise UserError("the tokenizer has no mask token, so tokens cannot be hidden: use objective=causal")
        return x.masked_fill(hidden, self.mask)

    def targets(self, x: Tensor) -> Tensor:
        return x

    def assemble(self, targets: Tensor) -> Tensor:
        return targets

    def maskable(self, x: Tensor) -> Tensor:
        """Return which tokens are not special (B, T)."""
        return ~self.special[x]

    def word_ids(self, x: Tensor) -> Tensor:
        """Return the index of each token's word in its text (B, T); the first token of a text starts a word."""
        starts = ~self.joined[x]
        return starts.cumsum(1) - starts[:, :1].long()

    def _indicator(self, ids: tuple[int, ...]) -> Tensor:
        """Return which tokens of the vocabulary have one of these ids (V,)."""
        table = torch.zeros(self.target_size, dtype=torch.bool)
        table[list(ids)] = True
        return table
