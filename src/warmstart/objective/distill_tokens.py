"""Distillation of tokens: match the features of a frozen teacher at each token, and pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import NonNegativeFloat
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse
from warmstart.objective.distill import Distill


class DistillTokens(Objective, nn.Module):
    """Two linear maps predict the features of the teacher, standardized: one of each token, one of the pooled features.

    Teacher and student have the same tokenizer. The loss of an example is the mean over its tokens, special ones
    included, plus `pooled` times that of its pooled features.

    Source: Jiao et al. (2020), "TinyBERT: Distilling BERT for Natural Language Understanding",
    https://arxiv.org/abs/1909.10351, hidden states of the last layer only.

    Args:
        spec: `center` and `spread` are those of the teacher's pooled features, then those of its tokens (2D).
        loss: loss of the prediction and the target.
        cosine: scale both to a mean square of 1, so that only their direction counts: `mse` is then 2 - 2 cos.
        pooled: weight of the loss of the pooled features, 0 or more.
    """

    teacher_output: ClassVar = "tokens"
    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    abilities: ClassVar = frozenset({"load_head"})

    def __init__(
        self, backbone: Backbone, spec: Spec, loss: LossFunction, cosine: bool = True, pooled: NonNegativeFloat = 1.0
    ):
        super().__init__()
        width = len(spec.center) // 2
        halves = [
            replace(spec, center=spec.center[part], spread=spec.spread[part])
            for part in (slice(width), slice(width, None))
        ]
        self.pooled, self.tokens = (Distill(backbone, half, loss, cosine) for half in halves)
        self.weight = pooled

    def load_head(self, head: Mapping[str, Tensor], labels: Sequence[str]) -> bool:
        """Load the heads of a distillation of the same teacher on the same rows; return whether they were loaded."""
        parts = {
            part: {name.removeprefix(f"{part}."): v for name, v in head.items() if name.startswith(f"{part}.")}
            for part in ("pooled", "tokens")
        }
        if not all(getattr(self, part).fits(values) for part, values in parts.items()):
            return False
        return all(getattr(self, part).load_head(values, labels) for part, values in parts.items())

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over examples; the targets are pooled features and those of each token (B, 1 + T, D).

        The measures are the mean cosine similarities of predictions and standardized targets, `cosine` of the pooled
        features and `token_cosine` of the tokens.
        """
        features = backbone(batch.x, batch.mask)
        values, similarity = self.pooled.compared(features.pooled, batch.y[:, 0])
        valid = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask > 0
        losses, similarities = self.tokens.compared(features.tokens[valid], batch.y[:, 1:][valid])
        counts = valid.sum(1)
        of_rows = torch.zeros_like(values).index_add(0, valid.nonzero()[:, 0], losses) / counts.clamp(min=1)
        values = of_rows + self.weight * values
        measures = {"cosine": similarity.mean(), "token_cosine": similarities.mean()}
        return StepOutput(values.mean(), values.numel(), measures=measures)
