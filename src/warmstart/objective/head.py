"""Heads, and the loss of mixed examples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from warmstart.core.batch import Batch
from warmstart.core.protocols import Backbone, LossFunction

LOGITS = 2**26  # limit of memory: logits that are computed at once, 0.25 GiB in float32


def make_head(backbone: Backbone, task: str, outputs: int) -> nn.Module:
    """Return a head that maps features (..., D) to (..., outputs): that of the backbone, or a linear layer.

    Args:
        backbone: its `head` may return a head for the task, which transformers can load.
        task: name of the task in transformers, such as sequence_classification or masked_lm.
        outputs: number of outputs.
    """
    own = backbone.head(task, outputs)
    return nn.Linear(backbone.width, outputs) if own is None else own


def largest_chunk(chunk: int, outputs: int) -> int:
    """Return the number of positions with this number of outputs that are computed at once: at most `chunk`."""
    return max(1, min(chunk, LOGITS // outputs))


def by_chunks(function: Callable[..., Any], chunk: int, *tensors: Tensor) -> list[Any]:
    """Return the results of a function of chunks of tensors (N, ...), each with at most `chunk` rows.

    With several chunks, the activations of each are recomputed in the backward pass, so that memory has those of one.
    """
    chunks = list(zip(*(tensor.split(chunk) for tensor in tensors)))
    if len(chunks) == 1 or not torch.is_grad_enabled():
        return [function(*one) for one in chunks]
    return [checkpoint(function, *one, use_reentrant=False) for one in chunks]


def make_projection(*widths: int) -> nn.Sequential:
    """Return linear layers of these widths, with batch norm and ReLU after all but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def mixed_loss(loss: LossFunction, outputs: Tensor, batch: Batch) -> Tensor:
    """Return one value per example (B,): for mixed examples, the losses of both targets, weighted by their shares.

    As in the code of Zhang et al. (2018), "mixup", https://arxiv.org/abs/1710.09412. It also works for losses that do
    not take class probabilities; for cross-entropy it equals the loss of the mixed targets.
    """
    values = loss(outputs, batch.y)
    if batch.share is None:
        return values
    return batch.share * values + (1 - batch.share) * loss(outputs, batch.partner)
