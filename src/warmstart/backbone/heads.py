"""Heads on the features of token numbers, in the forms that transformers' ModernBERT and Llama classes have."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.backbone.block import LAYER_EPS, STD, Architecture


class Tied(nn.Module):
    """Logits of tokens by their embeddings (Press and Wolf 2017), which stay the backbone's own parameter."""

    def __init__(self, embedding: nn.Embedding, bias: bool):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None
        self.source = (embedding,)  # in a tuple, so that it is not registered here too

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return F.linear(x, self.source[0].weight, self.bias)


def token_head(task: str, outputs: int, architecture: Architecture, embedding: nn.Embedding) -> nn.Module:
    """From features (..., D) to (..., outputs).

    Args:
        task: named as in transformers.
        outputs: how many.
        architecture: the trunk's settings.
        embedding: of its tokens.
    """
    width, causal = architecture.width, architecture.causal
    if task in ("masked_lm", "causal_lm"):
        naming = Tied(embedding, bias=not causal) if architecture.tied else linear(width, outputs, bias=not causal)
        if causal:
            return naming
        parts = {
            "dense": linear(width, width, bias=False),
            "act": nn.GELU(),
            "norm": nn.LayerNorm(width, eps=LAYER_EPS, bias=architecture.bias),
            "decoder": naming,
        }
        return nn.Sequential(OrderedDict(parts))
    if task == "sequence_classification":
        return linear(width, outputs, bias=not causal)
    if causal:
        return linear(width, outputs)
    norm = nn.LayerNorm(width, eps=LAYER_EPS, elementwise_affine=False)
    return nn.Sequential(OrderedDict(norm=norm, classifier=linear(width, outputs)))


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer that starts with small weights and no bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
