"""Causal language modeling, as in GPT (Radford et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy, is_likelihood
from warmstart.objective.head import by_chunks, largest_chunk, make_head

PROMPT = 16  # tokens of the prompt of an example in TensorBoard
CONTINUATION = 100  # tokens generated after the prompt


class Causal(Objective, nn.Module):
    """Cross-entropy of the next token, computed in chunks of `chunk` positions to save memory.

    The logits of a chunk are recomputed in the backward pass, so memory holds chunk x vocabulary logits instead of
    positions x vocabulary.

    Args:
        backbone: a causal backbone.
        spec: spec with a vocabulary.
        loss: loss of logits and token ids.
        chunk: number of positions in a chunk.
    """

    predicts: ClassVar = "category"
    needs: ClassVar = frozenset({"causal"})
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "causal_lm"
    abilities: ClassVar = frozenset({"examples"})

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, chunk: PositiveInt = 8192):
        super().__init__()
        self.loss, self.chunk = loss, largest_chunk(chunk, backbone.target_size)
        self.head = make_head(backbone, self.task, backbone.target_size)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over positions that have a next token in the same row or document."""
        targets = backbone.targets(batch.x)
        features, labels = backbone(batch.x, batch.mask).tokens[:, :-1], targets[:, 1:]
        if batch.mask is None:
            features, labels = features.flatten(0, 1), labels.flatten()
        else:
            valid = (batch.mask[:, 1:] > 0) & (batch.mask[:, 1:] == batch.mask[:, :-1])
            features, labels = features[valid], labels[valid]
        total = torch.stack(by_chunks(self.total_loss, self.chunk, features, labels)).sum()
        return StepOutput(total / max(1, len(labels)), len(labels))

    def total_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the losses at these positions."""
        return self.loss(self.head(features), labels).sum()

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str]) -> list[str]:
        """Return the start of each example as a prompt, in bold, and a continuation sampled from the model."""
        x = batch.x[:, :PROMPT]
        length = min(CONTINUATION, batch.x.shape[1] - x.shape[1])
        for _ in range(length):
            logits = self.head(backbone(x).tokens[:, -1]).float()
            x = torch.cat([x, torch.multinomial(logits.softmax(-1), 1)], 1)
        return [f"**{decode(row[:PROMPT])}**{decode(row[PROMPT:])}" for row in x.tolist()]

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """Return perplexity per token and bits per byte of raw text, if the loss is the negative log-likelihood.

        Bits per byte are comparable between tokenizers that are lossless: without lower-casing or unknown tokens.
        """
        if not is_likelihood(self.loss):
            return {}
        found = {"perplexity": math.exp(min(loss, 700))}
        if spec.bytes_per_token:
            found["bits_per_byte"] = loss / math.log(2) / spec.bytes_per_token
        return found
