"""Heads: the backbone's own form for a task, or one linear layer."""

from __future__ import annotations

from torch import nn

from warmstart.contracts import Backbone


def make_head(backbone: Backbone, task: str, outputs: int) -> nn.Module:
    """From features (..., D) to (..., outputs).

    Args:
        backbone: asked for a head of its own, which other libraries that know its architecture know too.
        task: named as in transformers, such as sequence_classification or masked_lm.
        outputs: how many.
    """
    return backbone.head(task, outputs) if hasattr(backbone, "head") else nn.Linear(backbone.width, outputs)
