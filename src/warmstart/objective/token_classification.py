"""Token classification, with one class per word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.core.tags import entities, scheme_of
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.entities import EntityScores, count, types_of
from warmstart.objective.head import make_head

NONE = -100  # target of positions without a class, as in transformers
Measured = Literal["f1", "accuracy"]


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
    """Classification head on the first token of each word, as in BERT for named entities (Devlin et al. 2019).

    Args:
        backbone: a backbone of tokens.
        spec: has the tags as labels.
        loss: loss of logits and class indices.
        metric: metric that selects the best checkpoint and that reports compare: `f1`, micro-averaged over entities
            if the tags mark entities (BIO, BIOES), else over words, which equals the accuracy; or `accuracy` over
            words.
    """

    target: ClassVar = "tags"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "token_classification"
    bounds: ClassVar = (0.0, 1.0)
    abilities: ClassVar = frozenset({"examples", "tagged"})

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, metric: Measured = "f1"):
        super().__init__()
        self.loss, self.metric = loss, metric
        self.labels, self.classes = spec.labels, spec.outputs
        self.monitor = type(self).monitor(metric)
        self.types = types_of(spec.labels) if scheme_of(spec.labels) else []
        self.head = make_head(backbone, self.task, spec.outputs)

    @staticmethod
    def monitor(metric: Measured = "f1", **settings: Any) -> tuple[str, str]:
        """Return the monitored metric and its mode with these settings."""
        return f"val/{metric}", "max"

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
        """Return accuracy over words and, of entities, precision, recall and F1; without entities, F1 over words."""
        accuracy = WordAccuracy(self.classes, average="micro", ignore_index=NONE)
        if self.types:
            return {"accuracy": accuracy, "entities": EntityScores(self.counts, self.types)}
        by_word = {"f1": "micro", "macro_f1": "macro"}
        f1 = {name: WordF1(self.classes, average=average, ignore_index=NONE) for name, average in by_word.items()}
        return {"accuracy": accuracy, **f1}

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return numerator and denominator of the metric for each sentence (B, 2): F1 is 2 TP / (2 TP + FP + FN)."""
        if self.types and self.metric == "f1":
            correct, predicted, true = self.counts(outputs, y).sum(1).unbind(1)
            return torch.stack([2 * correct, predicted + true], 1)
        labelled = y != NONE
        return torch.stack([((outputs.argmax(-1) == y) & labelled).sum(1), labelled.sum(1)], 1).float()

    def counts(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the numbers of correct, predicted and true entities of each sentence by type (B, types, 3)."""
        pairs = self.tagged(outputs, y)
        return torch.from_numpy(np.stack([count(predicted, true, self.types) for true, predicted in pairs]))

    def tagged(self, outputs: Tensor, y: Tensor) -> list[tuple[list[str], list[str]]]:
        """Return the true and the predicted labels of the words of each sentence."""
        return list(zip(self.words(y, y), self.words(outputs.argmax(-1), y)))

    def words(self, classes: Tensor, y: Tensor) -> list[list[str]]:
        """Return the labels of the words of each sentence, given class indices and targets (B, T)."""
        rows = zip(classes.tolist(), (y != NONE).tolist())
        return [[self.labels[label] for label, is_word in zip(row, words) if is_word] for row, words in rows]

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per example: the most likely label of each word, and the entities.

        Words that were truncated have no label. `start` and `end` of an entity are indices of words, the end excluded.
        """
        records = [{"labels": labels} for labels in self.words(outputs.argmax(-1), batch.y)]
        if self.types:
            for record in records:
                found = entities(record["labels"])
                record["entities"] = [{"type": kind, "start": first, "end": last + 1} for kind, first, last in found]
        return records

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str] | None) -> list[str]:
        """Return the words of each sentence with their predicted tags; a wrong tag is bold, before the true one."""
        tagged, lines = self.tagged(self.predict(backbone, batch), batch.y), []
        for tokens, y, (true, predicted) in zip(batch.x.tolist(), batch.y, tagged):
            starts = (y != NONE).nonzero()[:, 0].tolist()
            words = [decode(tokens[start:end]).strip() for start, end in zip(starts, [*starts[1:], len(tokens)])]
            tags = [one if one == two else f"**{one}** ({two})" for one, two in zip(predicted, true)]
            lines.append(" ".join(f"{word}/{tag}" for word, tag in zip(words, tags)))
        return lines
