"""Single-label classification."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.head import make_head, mixed_loss
from warmstart.objective.label_words import LabelWords
from warmstart.objective.scores import CalibrationError


class PooledClassification(Objective, nn.Module):
    """Base class: a head on the pooled features, with one logit per class or label."""

    task: ClassVar = "sequence_classification"
    mixes: ClassVar = True

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction):
        super().__init__()
        self.loss = loss
        self.outputs = spec.outputs
        self.head = make_head(backbone, self.task, spec.outputs)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        return self.head(backbone(batch.x, batch.mask).pooled)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over examples and the logits (B, C)."""
        outputs = self.predict(backbone, batch)
        values = mixed_loss(self.loss, outputs, batch)
        return StepOutput(values.mean(), values.numel(), outputs)


class Classification(PooledClassification):
    """One class per example."""

    target: ClassVar = "category"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    is_single_label: ClassVar = True
    prompted: ClassVar = LabelWords
    monitor: ClassVar = ("val/accuracy", "max")
    bounds: ClassVar = (0.0, 1.0)

    def metrics(self) -> dict[str, Any]:
        """Return accuracy, macro F1 and expected calibration error (15 bins)."""
        return {
            "accuracy": MulticlassAccuracy(self.outputs, average="micro"),
            "f1": MulticlassF1Score(self.outputs, average="macro"),
            "calibration_error": CalibrationError(self.outputs),
        }

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return 1 for each correct example, else 0 (B,)."""
        return (outputs.argmax(-1) == y).float()

    def to_records(self, outputs: Any, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per example: its most likely label and the probability of that label."""
        probabilities = outputs.float().softmax(-1)
        best = probabilities.argmax(-1).tolist()
        return [
            {"label": spec.labels[label], "probability": round(p[label], 6)}
            for label, p in zip(best, probabilities.tolist())
        ]
