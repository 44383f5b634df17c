"""Pseudo-labels: the model's own confident predictions for unlabelled rows, as targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective

DECAY = 0.95  # of the running means of labels and predictions, per step


class PseudoLabels:
    """Adds to the loss of labelled rows that of unlabelled rows with a confident prediction.

    With `align`, predictions are multiplied by the ratio of the mean label to the mean prediction, and normalized, so
    that the pseudo-labels have the class frequencies of the labelled rows (distribution alignment, Berthelot et al.
    2020, https://arxiv.org/abs/1911.09785). Both means are running ones.
    """

    def __init__(self, confidence: float, align: bool):
        self.confidence, self.align = confidence, align
        self.means: dict[str, Tensor] = {}

    def add(
        self, output: StepOutput, objective: Objective, backbone: Backbone, batch: Batch, weight: float
    ) -> StepOutput:
        """Return the output of the labelled rows with the loss of the unlabelled rows added.

        The predictions for the weakly augmented rows are the targets of the strongly augmented ones or, if there are
        none, of the same rows with other dropout. `pseudo_labels` is the share of unlabelled rows with a target.
        """
        rows = batch.unlabelled
        with torch.no_grad():
            p = objective.predict(backbone, Batch(rows.x, mask=rows.mask)).float().softmax(-1)
            if self.align:
                p = self._aligned(p, batch.y)
            confidence, labels = p.max(-1)
            kept = (confidence >= self.confidence).float()
        outputs = objective.predict(backbone, Batch(rows.x if rows.strong is None else rows.strong, mask=rows.mask))
        loss = (F.cross_entropy(outputs.float(), labels, reduction="none") * kept).mean()
        measures = {**output.measures, "pseudo_labels": kept.mean()}
        return replace(output, loss=output.loss + weight * loss, measures=measures)

    def _aligned(self, p: Tensor, y: Tensor) -> Tensor:
        """Update the means with predictions p (U, C) and labels y (B,); return p with the class frequencies of y."""
        now = {"labels": F.one_hot(y, p.shape[1]).float().mean(0), "predictions": p.mean(0)}
        for name, value in now.items():
            before = self.means.get(name)
            self.means[name] = value if before is None else before.to(value.device).lerp(value, 1 - DECAY)
        p = p * (self.means["labels"] / self.means["predictions"].clamp(min=1e-6))
        return p / p.sum(-1, keepdim=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the running means."""
        return dict(self.means)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the running means."""
        self.means = dict(state)
