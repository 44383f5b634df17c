"""One class per word."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.head import make_head

NONE = -100  # what a position without a class has, as in transformers


class WordAccuracy(MulticlassAccuracy):
    """The share of the words that are right."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count logits (B, T, C) and class numbers (B, T)."""
        super().update(outputs.flatten(0, 1), y.flatten())


class WordF1(MulticlassF1Score):
    """The mean of the classes' F1 scores over words."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count logits (B, T, C) and class numbers (B, T)."""
        super().update(outputs.flatten(0, 1), y.flatten())


class TokenClassification(Objective, nn.Module):
    """A head on the features of each word's first token, as BERT for named entities (Devlin et al. 2019)."""

    target: ClassVar = "tags"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "token_classification"
    monitor: ClassVar = ("val/accuracy", "max")

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction):
        super().__init__()
        self.loss = loss
        self.classes = spec.outputs
        self.head = make_head(backbone, self.task, spec.outputs)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Logits (B, T, C), 0 where a position has no class."""
        labelled = batch.y != NONE
        logits = self.head(backbone(batch.x, batch.mask).tokens[labelled])
        outputs = logits.new_zeros(*labelled.shape, logits.shape[-1])
        outputs[labelled] = logits
        return outputs

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Logits (B, T, C) and one loss value per word."""
        outputs = self.predict(backbone, batch)
        labelled = batch.y != NONE
        values = self.loss(outputs[labelled], batch.y[labelled])
        return StepOutput(values.sum() / max(1, values.numel()), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Accuracy over words, and the mean of the classes' F1 scores."""
        return {
            "accuracy": WordAccuracy(self.classes, average="micro", ignore_index=NONE),
            "f1": WordF1(self.classes, average="macro", ignore_index=NONE),
        }

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """None: accuracy over words is no mean over examples."""

    def answer(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per example: the most likely label of each word, up to where the example was cut off."""
        best, labelled = outputs.argmax(-1).tolist(), (batch.y != NONE).tolist()
        return [
            {"labels": [spec.labels[label] for label, is_word in zip(row, words) if is_word]}
            for row, words in zip(best, labelled)
        ]
