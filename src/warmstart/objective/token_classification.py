"""Token classification, with one class per word."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.head import make_head

NONE = -100  # target of positions without a class, as in transformers


class WordAccuracy(MulticlassAccuracy):
    """Accuracy over words."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add logits (B, T, C) and class indices (B, T)."""
        super().update(outputs.flatten(0, 1), y.flatten())


class WordF1(MulticlassF1Score):
    """F1 score over words."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add logits (B, T, C) and class indices (B, T)."""
        super().update(outputs.flatten(0, 1), y.flatten())


class TokenClassification(Objective, nn.Module):
    """Classification head on the first token of each word, as in BERT for named entities (Devlin et al. 2019)."""

    target: ClassVar = "tags"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "token_classification"
    monitor: ClassVar = ("val/accuracy", "max")
    bounds: ClassVar = (0.0, 1.0)

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction):
        super().__init__()
        self.loss = loss
        self.classes = spec.outputs
        self.head = make_head(backbone, self.task, spec.outputs)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return logits (B, T, C), 0 at positions without a class."""
        labelled = batch.y != NONE
        logits = self.head(backbone(batch.x, batch.mask).tokens[labelled])
        outputs = logits.new_zeros(*labelled.shape, logits.shape[-1])
        outputs[labelled] = logits
        return outputs

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over words and the logits (B, T, C)."""
        outputs = self.predict(backbone, batch)
        labelled = batch.y != NONE
        values = self.loss(outputs[labelled], batch.y[labelled])
        return StepOutput(values.sum() / max(1, values.numel()), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Return accuracy and macro F1 over words."""
        return {
            "accuracy": WordAccuracy(self.classes, average="micro", ignore_index=NONE),
            "f1": WordF1(self.classes, average="macro", ignore_index=NONE),
        }

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """Return None: accuracy over words is not a mean over examples."""

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per example: the most likely label of each word, without words that were truncated."""
        best, labelled = outputs.argmax(-1).tolist(), (batch.y != NONE).tolist()
        return [
            {"labels": [spec.labels[label] for label, is_word in zip(row, words) if is_word]}
            for row, words in zip(best, labelled)
        ]
