"""Prediction heads, and projection heads for pretraining."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from warmstart.core.protocols import Backbone


def make_head(backbone: Backbone, task: str, outputs: int) -> nn.Module:
    """Return a head that maps features (..., D) to (..., outputs): that of the backbone, or a linear layer.

    Args:
        backbone: its `head` may return a head for the task, which transformers can load.
        task: name of the task in transformers, such as sequence_classification or masked_lm.
        outputs: number of outputs.
    """
    own = backbone.head(task, outputs)
    return nn.Linear(backbone.width, outputs) if own is None else own


def make_projection(*widths: int) -> nn.Sequential:
    """Return linear layers of these widths, with batch norm and ReLU after all but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])
