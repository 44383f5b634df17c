"""Multilayer perceptron on the flattened input."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from warmstart.core.batch import Features
from warmstart.core.protocols import Backbone
from warmstart.core.ranges import RightOpenUnitInterval, Widths
from warmstart.core.spec import Spec


class MLP(Backbone, nn.Module):
    """One layer per entry of `hidden`: linear, optional layer norm, GELU, optional dropout."""

    modalities: ClassVar = frozenset({"vector", "image"})

    def __init__(self, spec: Spec, hidden: Widths, norm: bool = False, dropout: RightOpenUnitInterval = 0.0):
        super().__init__()
        sizes = [math.prod(spec.shape), *hidden]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(inputs, outputs),
                nn.LayerNorm(outputs) if norm else nn.Identity(),
                nn.GELU(),
                nn.Dropout(dropout) if dropout else nn.Identity(),
            )
            for inputs, outputs in pairwise(sizes)
        )
        self.width = sizes[-1]

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map (B, ...) to tokens (B, 1, D) and pooled (B, D), both the output of the last layer."""
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x)
        return Features(tokens=x[:, None], pooled=x)

    def depths(self) -> dict[str, int]:
        return {f"layers.{index}": index for index in range(len(self.layers))}
