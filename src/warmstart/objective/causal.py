"""Predict each token from those before it, as GPT does (Radford et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Count
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy, is_likelihood
from warmstart.objective.head import make_head

PROMPT = 16  # tokens of an example that TensorBoard shows the continuation of
SHOWN = 100  # tokens of the continuation


class Causal(Objective, nn.Module):
    """Cross-entropy of the next token, `chunk` positions at a time, so that all logits are never held at once.

    The logits of a chunk are computed again for its gradients: memory of chunk x vocabulary in place of all positions x
    vocabulary.

    Args:
        backbone: one that sees earlier positions only.
        spec: with a vocabulary.
        loss: of logits and token numbers.
        chunk: positions.
    """

    predicts: ClassVar = "category"
    needs: ClassVar = frozenset({"causal"})
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "causal_lm"
    abilities: ClassVar = frozenset({"examples"})

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, chunk: Count = 8192):
        super().__init__()
        self.loss, self.chunk = loss, chunk
        self.head = make_head(backbone, self.task, backbone.target_size)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """One loss value per position that has a next one in its row, or in its document."""
        targets = backbone.targets(batch.x)
        features, wanted = backbone(batch.x, batch.mask).tokens[:, :-1], targets[:, 1:]
        if batch.mask is None:
            features, wanted = features.flatten(0, 1), wanted.flatten()
        else:
            known = (batch.mask[:, 1:] > 0) & (batch.mask[:, 1:] == batch.mask[:, :-1])
            features, wanted = features[known], wanted[known]
        chunks = list(zip(features.split(self.chunk), wanted.split(self.chunk)))
        if len(chunks) == 1:
            total = self.total(*chunks[0])
        else:
            total = torch.stack([checkpoint(self.total, *chunk, use_reentrant=False) for chunk in chunks]).sum()
        return StepOutput(total / max(1, len(wanted)), len(wanted))

    def total(self, features: Tensor, wanted: Tensor) -> Tensor:
        """The sum of the losses at some positions."""
        return self.loss(self.head(features), wanted).sum()

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str]) -> list[str]:
        """The start of each example and how the model goes on, drawn token by token."""
        x = batch.x[:, :PROMPT]
        room = min(SHOWN, batch.x.shape[1] - x.shape[1])
        for _ in range(room):
            logits = self.head(backbone(x).tokens[:, -1]).float()
            x = torch.cat([x, torch.multinomial(logits.softmax(-1), 1)], 1)
        return [f"**{decode(row[:PROMPT])}**{decode(row[PROMPT:])}" for row in x.tolist()]

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """Perplexity per token, and bits per byte of raw text, where the loss is the tokens' likelihood.

        Bits per byte compare tokenizers, as long as these keep the whole text: none that lower-cases or knows not all.
        """
        if not is_likelihood(self.loss):
            return {}
        found = {"perplexity": math.exp(min(loss, 700))}
        if spec.bytes_per_token:
            found["bits_per_byte"] = loss / math.log(2) / spec.bytes_per_token
        return found
