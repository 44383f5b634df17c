"""Metrics of torchmetrics that accept logits or probabilities, called with probabilities or predicted labels.

torchmetrics would mistake logits that all lie in [0, 1] for probabilities.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError, MultilabelAccuracy, MultilabelF1Score


class CalibrationError(MulticlassCalibrationError):
    """Expected calibration error of the most likely class (15 bins)."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add logits (B, C) and class indices (B,)."""
        super().update(outputs.float().softmax(-1), y)


class LabelAccuracy(MultilabelAccuracy):
    """Accuracy over all labels of all examples."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add logits (B, C) and binary targets (B, C)."""
        super().update(predicted_labels(outputs).int(), y.int())


class LabelF1(MultilabelF1Score):
    """F1 score over labels."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add logits (B, C) and binary targets (B, C)."""
        super().update(predicted_labels(outputs).int(), y.int())


def predicted_labels(outputs: Tensor) -> Tensor:
    """Return which labels (B, C) have a probability of 0.5 or more, from logits (B, C)."""
    return outputs.float().sigmoid() >= 0.5
