"""Log-probabilities of completions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch
from warmstart.core.protocols import Backbone
from warmstart.objective.head import by_chunks

NONE = -100  # label of positions that are not supervised, as in transformers


def completion_log_probabilities(backbone: Backbone, head: nn.Module, batch: Batch, chunk: int) -> Tensor:
    """Return the sum of the log-probabilities of the supervised tokens of each row (B,), in float32.

    Args:
        backbone: a causal backbone.
        head: returns the logits of the next token.
        batch: token ids and their labels (B, T).
        chunk: number of positions whose logits are computed at once.
    """

    def of_tokens(features: Tensor, labels: Tensor) -> Tensor:
        return -F.cross_entropy(head(features).float(), labels, reduction="none")

    labels = batch.y[:, 1:]
    keep = labels != NONE
    features, targets = backbone(batch.x, batch.mask).tokens[:, :-1][keep], labels[keep]
    found = by_chunks(of_tokens, chunk, features, targets)
    return found[0].new_zeros(len(labels)).index_add(0, keep.nonzero()[:, 0], torch.cat(found))
