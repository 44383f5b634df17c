"""Any number of labels per example."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.loss.bce import bce
from warmstart.objective.head import make_head
from warmstart.objective.mixed import mixed_loss
from warmstart.objective.probability_score import LabelAccuracy, LabelF1, decided


class MultiLabel(Objective, nn.Module):
    """A linear head on the pooled features, one logit per label."""

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
        """Logits (B, C)."""
        return self.head(backbone(batch.x, batch.mask).pooled)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Logits (B, C) and one loss value per example."""
        outputs = self.predict(backbone, batch)
        values = mixed_loss(self.loss, outputs, batch)
        return StepOutput(values.mean(), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Accuracy over all label decisions and the mean of the labels' F1 scores."""
        return {
            "accuracy": LabelAccuracy(self.labels, average="micro"),
            "f1": LabelF1(self.labels, average="macro"),
        }

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """None: F1 is no mean over examples."""

    def answer(self, outputs: Any, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per example: the labels at least as likely as not, and every label's probability."""
        return [
            {
                "labels": [label for label, is_given in zip(spec.labels, given) if is_given],
                "probabilities": {label: round(p, 6) for label, p in zip(spec.labels, row)},
            }
            for row, given in zip(outputs.float().sigmoid().tolist(), decided(outputs).tolist())
        ]
