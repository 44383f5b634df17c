"""Scores computed from all predictions of a split: of probabilities and of transcripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchmetrics import Metric
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


KINDS = ("substitutions", "deletions", "insertions")


class TranscriptErrors(Metric):
    """Word error rate, its components by kind of error, and character error rate, over all utterances.

    Args:
        decode: converts the outputs of a batch to texts.
        target_texts: converts the targets of a batch to texts.

    `compared` holds the number of wrong words, the reference and the prediction of each utterance of the last batch.
    """

    full_state_update = False

    def __init__(self, decode: Callable[[Tensor], list[str]], target_texts: Callable[[Tensor], list[str]]):
        super().__init__()
        self.decode, self.target_texts = decode, target_texts
        self.compared: list[tuple[int, str, str]] = []
        self.add_state("edits", torch.zeros(len(KINDS), dtype=torch.float64), dist_reduce_fx="sum")
        # Words, characters, character errors.
        self.add_state("sizes", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, y: Tensor) -> None:
        self.compared = []
        for reference, prediction in zip(self.target_texts(y), self.decode(outputs)):
            kinds = edits(reference.split(), prediction.split())
            self.compared.append((sum(kinds), reference, prediction))
            self.edits += torch.tensor(kinds, dtype=torch.float64)
            wrong = sum(edits(reference, prediction))
            self.sizes += torch.tensor([len(reference.split()), len(reference), wrong], dtype=torch.float64)

    def compute(self) -> dict[str, Tensor]:
        """Return errors per word and per character of the references."""
        words, characters, wrong = self.sizes
        components = dict(zip(KINDS, self.edits / words))
        return {"wer": self.edits.sum() / words, "cer": wrong / characters, **components}


def edits(reference: Sequence[str], prediction: Sequence[str]) -> tuple[int, int, int]:
    """Return the substitutions, deletions and insertions of a shortest edit script from reference to prediction."""
    counts = Counter(edit.tag for edit in Levenshtein.editops(reference, prediction))
    return counts["replace"], counts["delete"], counts["insert"]
