"""Heads: the backbone's own form for a task, one linear layer, or a projection that only pretraining uses."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from warmstart.core.protocols import Backbone


def make_head(backbone: Backbone, task: str, outputs: int) -> nn.Module:
    """From features (..., D) to (..., outputs).

    Args:
        backbone: asked for a head of its own, which other libraries that know its architecture know too.
        task: named as in transformers, such as sequence_classification or masked_lm.
        outputs: how many.
    """
    own = backbone.head(task, outputs)
    return nn.Linear(backbone.width, outputs) if own is None else own


def make_projection(*widths: int) -> nn.Sequential:
    """Linear layers between these widths, with batch norm and ReLU after all but the last: (B, first) to (B, last)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])
