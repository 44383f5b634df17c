"""Multilabel classification."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.spec import Spec
from warmstart.loss.bce import bce
from warmstart.objective.classification import PooledClassification
from warmstart.objective.scores import LabelAccuracy, LabelF1, predicted_labels


class MultiLabel(PooledClassification):
    """Any number of labels per example."""

    target: ClassVar = "categories"
    predicts: ClassVar = "categories"
    default_loss: ClassVar = staticmethod(bce)
    monitor: ClassVar = ("val/f1", "max")
    bounds: ClassVar = (0.0, 1.0)

    def metrics(self) -> dict[str, Any]:
        """Return micro accuracy and macro F1 over labels."""
        return {"accuracy": LabelAccuracy(self.outputs, average="micro"), "f1": LabelF1(self.outputs, average="macro")}

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
