"""Multilabel classification."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.loss.bce import bce
from warmstart.objective.head import make_head, mixed_loss
from warmstart.objective.scores import LabelAccuracy, LabelF1, predicted_labels


class MultiLabel(Objective, nn.Module):
    """Classification head on the pooled features, with one logit per label."""

    target: ClassVar = "categories"
    predicts: ClassVar = "categories"
    default_loss: ClassVar = staticmethod(bce)
    task: ClassVar = "sequence_classification"
    mixes: ClassVar = True
    monitor: ClassVar = ("val/f1", "max")

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction):
        super().__init__()
        self.loss = loss
        self.labels = spec.outputs
        self.head = make_head(backbone, self.task, spec.outputs)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        return self.head(backbone(batch.x, batch.mask).pooled)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over examples and the logits (B, C)."""
        outputs = self.predict(backbone, batch)
        values = mixed_loss(self.loss, outputs, batch)
        return StepOutput(values.mean(), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Return micro accuracy and macro F1 over labels."""
        return {
            "accuracy": LabelAccuracy(self.labels, average="micro"),
            "f1": LabelF1(self.labels, average="macro"),
        }

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """Return None: F1 is not a mean over examples."""

    def to_records(self, outputs: Any, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per example: the labels with a probability of 0.5 or more, and all probabilities."""
        return [
            {
                "labels": [label for label, is_given in zip(spec.labels, given) if is_given],
                "probabilities": {label: round(p, 6) for label, p in zip(spec.labels, row)},
            }
            for row, given in zip(outputs.float().sigmoid().tolist(), predicted_labels(outputs).tolist())
        ]
