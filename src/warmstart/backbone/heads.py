"""Heads on text features, with the layers of the ModernBERT and Llama classes of transformers."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.backbone.block import LAYER_EPS, STD, Architecture


class Tied(nn.Module):
    """Output layer whose weight is the input embedding (Press and Wolf 2017), a parameter of the backbone."""

    def __init__(self, embedding: nn.Embedding, bias: bool):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None
        self.source = (embedding,)  # in a tuple, so that it is not registered as a submodule

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., V)."""
        return F.linear(x, self.source[0].weight, self.bias)


def token_head(task: str, outputs: int, architecture: Architecture, embedding: nn.Embedding) -> nn.Module:
    """Return a head that maps features (..., D) to (..., outputs).

    Args:
        task: name of the task in transformers, such as masked_lm.
        outputs: number of outputs.
        architecture: settings of the transformer.
        embedding: token embedding of the transformer.
    """
    width, causal = architecture.width, architecture.causal
    if task in ("masked_lm", "causal_lm"):
        decoder = Tied(embedding, bias=not causal) if architecture.tied else linear(width, outputs, bias=not causal)
        if causal:
            return decoder
        layers = {
            "dense": linear(width, width, bias=False),
            "act": nn.GELU(),
            "norm": nn.LayerNorm(width, eps=LAYER_EPS, bias=architecture.bias),
            "decoder": decoder,
        }
        return nn.Sequential(OrderedDict(layers))
    if task == "sequence_classification":
        return linear(width, outputs, bias=not causal)
    if causal:
        return linear(width, outputs)
    norm = nn.LayerNorm(width, eps=LAYER_EPS, elementwise_affine=False)
    return nn.Sequential(OrderedDict(norm=norm, classifier=linear(width, outputs)))


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer with weights from N(0, STD^2) and zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
