"""Pseudo-labels: the model's own confident predictions for unlabelled rows, as targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective, Scale, Strategy
from warmstart.distributed.part import computing, gathered

DECAY = 0.95  # of the running mean of predictions, per step


class PseudoLabels(Strategy):
    """Base class: adds to the loss of labelled rows that of unlabelled rows with a confident prediction.

    With `align`, predictions are multiplied by the ratio of the class frequencies of the labelled rows of all steps to
    the running mean of predictions, and normalized, so that the pseudo-labels have these frequencies (distribution
    alignment, Berthelot et al. 2020, https://arxiv.org/abs/1911.09785). A class starts with one row, so that one that
    no step has had yet is still predicted. With `soft`, the targets are the probabilities, not the most likely class.

    Attributes:
        unlabelled_rows: number of unlabelled rows of all steps with their loss.
    """

    only_scales_learning_rates: ClassVar = False
    uses_unlabelled: ClassVar = True

    def __init__(self, confidence: float, align: bool, soft: bool = False):
        self.confidence, self.align, self.soft = confidence, align, soft
        self.unlabelled_rows = 0
        self.state: dict[str, Tensor] = {}  # counts of labels and mean prediction (C,)

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return [("backbone.*", 1.0), ("objective.*", 1.0)]

    def count(self, output: StepOutput, batch: Batch) -> None:
        """Add the labels of a step, with the outputs of the labelled rows (B, C), to the class frequencies."""
        if self.align:
            labels = F.one_hot(gathered(batch.y), output.outputs.shape[-1]).float().sum(0)
            before = self.state.get("labels", torch.ones_like(labels))
            self.state["labels"] = before.to(labels.device) + labels

    def add(
        self,
        output: StepOutput,
        objective: Objective,
        backbone: Backbone,
        batch: Batch,
        weight: float,
        teacher: tuple[Objective, Backbone] | None = None,
    ) -> StepOutput:
        """Return the output of the labelled rows with the loss of the unlabelled rows added.

        The predictions of the teacher, by default the model itself, for the weakly augmented rows are the targets of
        the strongly augmented ones or, if there are none, of the same rows with other dropout. `pseudo_labels` is the
        share of unlabelled rows with a target.
        """
        rows = batch.unlabelled
        with computing(rows.part):
            loss, kept = self.unlabelled_loss(objective, backbone, rows, teacher or (objective, backbone))
        if rows.part is not None:  # the sum below is weighted by the share of the labelled rows
            loss = loss * (rows.part.share / batch.part.share if batch.part.share else 0.0)
        self.unlabelled_rows += len(rows.x) if rows.part is None else rows.part.total
        measures = {**output.measures, "pseudo_labels": kept.mean()}
        return replace(output, loss=output.loss + weight * loss, measures=measures)

    def unlabelled_loss(
        self, objective: Objective, backbone: Backbone, rows: Batch, teacher: tuple[Objective, Backbone]
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the rows (), and which of them have a target (U,)."""
        head, body = teacher
        with torch.no_grad():
            p = head.predict(body, Batch(rows.x, mask=rows.mask)).float().softmax(-1)
            if self.align:
                p = self._aligned(p)
            confidence, labels = p.max(-1)
            kept = (confidence >= self.confidence).float()
            if self.soft:
                labels = p
        outputs = objective.predict(backbone, Batch(rows.x if rows.strong is None else rows.strong, mask=rows.mask))
        return (F.cross_entropy(outputs.float(), labels, reduction="none") * kept).mean(), kept

    def _aligned(self, p: Tensor) -> Tensor:
        """Update the mean with predictions p (U, C); return p with the class frequencies of the labelled rows."""
        mean, before = gathered(p).mean(0), self.state.get("predictions")
        self.state["predictions"] = mean if before is None else before.to(mean.device).lerp(mean, 1 - DECAY)
        labels = self.state["labels"]
        p = p * (labels / labels.sum() / self.state["predictions"].clamp(min=1e-6))
        return p / p.sum(-1, keepdim=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the alignment and the number of rows."""
        return {**self.state, "rows": self.unlabelled_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.unlabelled_rows = state.get("rows", 0)
        self.state = {name: value for name, value in state.items() if name != "rows"}
