"""Metrics of torchmetrics that take probabilities or logits and tell them apart by their range, given probabilities.

Logits that happen to lie in [0, 1] would be taken for probabilities.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError, MultilabelAccuracy, MultilabelF1Score


class CalibrationError(MulticlassCalibrationError):
    """The expected calibration error of the most likely class (15 bins)."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count logits (B, C) and class numbers (B,)."""
        super().update(outputs.float().softmax(-1), y)


class LabelAccuracy(MultilabelAccuracy):
    """The share of the label decisions that are right."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count logits (B, C) and zero-or-one targets (B, C)."""
        super().update(decided(outputs).int(), y.int())


class LabelF1(MultilabelF1Score):
    """The mean of the labels' F1 scores."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count logits (B, C) and zero-or-one targets (B, C)."""
        super().update(decided(outputs).int(), y.int())


def decided(outputs: Tensor) -> Tensor:
    """Which labels (B, C) are at least as likely as not, by their logits (B, C)."""
    return outputs.float().sigmoid() >= 0.5
