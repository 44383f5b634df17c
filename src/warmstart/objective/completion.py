"""Supervised finetuning of causal language models: cross-entropy of the tokens of completions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective, Preprocessor
from warmstart.core.ranges import PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.greedy import continued
from warmstart.objective.head import by_chunks, largest_chunk, make_head
from warmstart.objective.text_metrics import rouge_l

NONE = -100  # label of positions that are not supervised, as in transformers
Metric = Literal["loss", "completion_loss", "exact_match", "rouge_l"]
SHARES = ("exact_match", "rouge_l")  # metrics from 0 to 1


class Completion(Objective, nn.Module):
    """Cross-entropy of the supervised tokens, such as those of an assistant, given all tokens before them.

    Outputs are (B, 3): for each row the sum of the losses, the number of supervised tokens, and how many of them are
    the most likely token. All of them are exactly if greedy decoding generates the completion. With `rouge_l`, a fourth
    column is the score of the greedily decoded last completion.

    Args:
        backbone: a causal backbone.
        spec: spec with a vocabulary.
        loss: loss of logits and token ids.
        metric: metric that selects the best checkpoint and that reports compare: `loss` per supervised token,
            `completion_loss`, the mean over rows of their loss per token, `exact_match` of greedy decoding, or
            `rouge_l`, for which the last completion of each held-out row is generated.
        chunk: largest number of positions whose logits are computed at once; fewer if the vocabulary is large.
        length: maximum number of tokens to generate for rouge_l.
    """

    target: ClassVar = "completion"
    predicts: ClassVar = "category"
    needs: ClassVar = frozenset({"causal"})
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "causal_lm"
    keeps_head: ClassVar = True
    abilities: ClassVar = frozenset({"texts"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        metric: Metric = "loss",
        chunk: PositiveInt = 8192,
        length: PositiveInt = 64,
    ):
        super().__init__()
        self.loss, self.metric, self.length = loss, metric, length
        self.spec: Spec = spec
        self.preprocessor: Preprocessor | None = None
        self.chunk = largest_chunk(chunk, backbone.target_size)
        self.monitor, self.bounds = type(self).monitor(metric), (0.0, 1.0 if metric in SHARES else None)
        self.head = make_head(backbone, self.task, backbone.target_size)

    @staticmethod
    def monitor(metric: Metric = "loss", **settings: Any) -> tuple[str, str]:
        """Return the monitored metric and its mode with these settings."""
        return f"val/{metric}", "max" if metric in SHARES else "min"

    def read_texts(self, preprocessor: Preprocessor) -> None:
        self.preprocessor = preprocessor

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over supervised tokens and, in evaluation, the outputs (B, 3) or (B, 4)."""
        labels = batch.y[:, 1:]
        keep = labels != NONE
        features, targets = backbone(batch.x, batch.mask).tokens[:, :-1][keep], labels[keep]
        count = len(targets)
        if self.training and torch.is_grad_enabled():
            total = torch.stack(by_chunks(self.total_loss, self.chunk, features, targets)).sum()
            return StepOutput(total / max(1, count), count)
        losses, correct = map(torch.cat, zip(*by_chunks(self.evaluated, self.chunk, features, targets)))
        row = keep.nonzero()[:, 0]
        ones = torch.ones_like(losses)
        outputs = losses.new_zeros(len(labels), 3).index_add(0, row, torch.stack([losses, ones, correct], 1))
        if self.metric == "rouge_l":
            outputs = torch.cat([outputs, self.rouge_l(backbone, batch)[:, None].to(outputs)], 1)
        return StepOutput(losses.sum() / max(1, count), count, outputs)

    def total_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the losses at these positions."""
        return self.loss(self.head(features), labels).sum()

    def evaluated(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (N,) at these positions, and 1 where the label is the most likely token, else 0 (N,)."""
        logits = self.head(features)
        losses = self.loss(logits, labels).float()
        return losses, (logits.argmax(-1) == labels).to(losses.dtype)

    def rouge_l(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the score of the last completion of each row (B,), decoded greedily after what precedes it."""
        prompts, references = zip(*map(last_completion, batch.x, batch.y))
        ends, context = self.preprocessor.ends, self.spec.shape[0]
        found = continued(backbone, self.head, prompts, ends, self.length, context)
        decode = self.preprocessor.decode
        return torch.tensor([rouge_l(decode(own), decode(known)) for own, known in zip(found, references)])

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the outputs (B, 3), or (B, 4) with rouge_l."""
        with torch.no_grad():
            return self.step(backbone, batch).outputs

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of the outputs."""
        rows = ("completion_loss", "exact_match", *(["rouge_l"] if self.metric == "rouge_l" else []))
        return {"loss": TokenMean(0), **{name: RowMean(name) for name in rows}, "token_accuracy": TokenMean(2)}

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor | None:
        """Return the metric of each row (B,); None for the loss per token, which is no mean over rows."""
        return None if self.metric == "loss" else row_scores(outputs, self.metric)

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per row: loss and number of its supervised tokens, and whether greedy decoding gives them."""
        rows = zip(
            *(row_scores(outputs, name).tolist() for name in ("completion_loss", "exact_match")), outputs.tolist()
        )
        return [
            {"loss": loss, "tokens": int(row[1]), "exact_match": bool(match), **dict(zip(["rouge_l"], row[3:]))}
            for loss, match, row in rows
        ]


def last_completion(x: Tensor, labels: Tensor) -> tuple[Tensor, list[int]]:
    """Return the tokens (P,) before the last supervised part of a row, and the tokens of that part."""
    places = (labels != NONE).nonzero()[:, 0].tolist()
    if not places:
        return x[:1], []
    first = places[-1]
    while first - 1 > 0 and labels[first - 1] != NONE:
        first -= 1
    return x[:first], labels[first : places[-1] + 1].tolist()


def row_scores(outputs: Tensor, metric: str) -> Tensor:
    """Return completion_loss, exact_match or rouge_l of each row (B,), given outputs (B, 3) or (B, 4)."""
    if metric == "rouge_l":
        return outputs[:, 3]
    total, count, correct = outputs[:, :3].unbind(1)
    return total / count.clamp(min=1) if metric == "completion_loss" else (correct == count).to(outputs.dtype)


class RowMean(MeanMetric):
    """Mean over rows of `row_scores`."""

    def __init__(self, name: str):
        super().__init__(nan_strategy="disable")
        self.name = name

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add outputs (B, 3)."""
        super().update(row_scores(outputs, self.name))


class TokenMean(MeanMetric):
    """Mean of a column of the outputs over supervised tokens."""

    def __init__(self, column: int):
        super().__init__(nan_strategy="disable")
        self.column = column

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add outputs (B, 3)."""
        count = outputs[:, 1]
        super().update(outputs[:, self.column] / count.clamp(min=1), count)
