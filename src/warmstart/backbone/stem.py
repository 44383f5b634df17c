"""Stems: how each modality becomes a row of tokens, and what a hidden token should be rebuilt into."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.errors import UserError
from warmstart.core.ranges import Count
from warmstart.core.spec import Spec


class Stem(nn.Module):
    """Inputs to tokens (B, T, D). It has what a backbone that can hide positions has, and does so itself if it `hides`;
    else the trunk puts a token of its own in their place. One of `one_size` takes inputs of its spec's size alone."""

    modalities: ClassVar[frozenset[str]]
    target_kind: ClassVar[str] = "value"
    one_size: ClassVar[bool] = False
    hides: ClassVar[bool] = False
    positions: int


class ValueStem(Stem):
    """A stem whose positions hold values: all may be hidden, and each is a word of its own."""

    def maskable(self, x: Tensor) -> Tensor:
        """All positions, (B, T)."""
        return torch.ones(len(x), self.positions, dtype=torch.bool, device=x.device)

    def words(self, x: Tensor) -> Tensor:
        """The number of each position, (B, T)."""
        return torch.arange(self.positions, device=x.device).expand(len(x), -1)


class FeatureStem(ValueStem):
    """One token per feature of a vector: its value times a learned direction, plus a learned offset.

    The numerical tokenizer of Gorishniy et al. 2021, "Revisiting Deep Learning Models for Tabular Data".
    """

    modalities: ClassVar = frozenset({"vector"})

    def __init__(self, spec: Spec, width: int):
        super().__init__()
        (self.positions,) = spec.shape
        self.target_size = 1
        self.direction = nn.Parameter(torch.randn(self.positions, width) * 0.5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, F) to (B, F, D)."""
        return x[:, :, None] * self.direction

    def targets(self, x: Tensor) -> Tensor:
        """The value of each feature, (B, F) to (B, F, 1)."""
        return x[:, :, None]

    def assemble(self, targets: Tensor) -> Tensor:
        """The inverse of `targets`."""
        return targets[:, :, 0]


class PatchStem(ValueStem):
    """One token per square patch of an image, as in ViT (Dosovitskiy et al. 2021)."""

    modalities: ClassVar = frozenset({"image"})
    one_size: ClassVar = True

    def __init__(self, spec: Spec, width: int, patch: Count = 4):
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


class TextStem(Stem):
    """One token per token of a text: its embedding. A hidden one is shown as the vocabulary's mask."""

    modalities: ClassVar = frozenset({"text"})
    target_kind: ClassVar = "category"
    hides: ClassVar = True

    def __init__(self, spec: Spec, width: int):
        super().__init__()
        (self.positions,) = spec.shape
        self.target_size, self.mask = spec.vocabulary.size, spec.vocabulary.mask
        self.embedding = nn.Embedding(self.target_size, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("special", self._among(spec.vocabulary.special), persistent=False)
        self.register_buffer("joined", self._among(spec.vocabulary.joined), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) to (B, T, D)."""
        return self.embedding(x)

    def hide(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Token numbers (B, T) with the mask's number at `hidden` (B, T).

        Raises:
            UserError: the tokenizer has no mask token.
        """
        if self.mask is None:
            raise UserError("the tokenizer has no mask token, so nothing can be hidden: use objective=causal")
        return x.masked_fill(hidden, self.mask)

    def targets(self, x: Tensor) -> Tensor:
        """The tokens themselves, (B, T)."""
        return x

    def assemble(self, targets: Tensor) -> Tensor:
        """The inverse of `targets`."""
        return targets

    def maskable(self, x: Tensor) -> Tensor:
        """All but special tokens, (B, T)."""
        return ~self.special[x]

    def words(self, x: Tensor) -> Tensor:
        """The number of each token's word within its row, (B, T); a row's first token starts one."""
        starts = ~self.joined[x]
        return starts.cumsum(1) - starts[:, :1].long()

    def _among(self, numbers: tuple[int, ...]) -> Tensor:
        """Which tokens of the vocabulary are among these, (V,)."""
        table = torch.zeros(self.target_size, dtype=torch.bool)
        table[list(numbers)] = True
        return table
