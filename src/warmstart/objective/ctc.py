"""Speech recognition: which labels were said, in order, without being told when."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.contracts import Backbone, Batch, LossFunction, Spec, StepOutput
from warmstart.loss.ctc import ctc
from warmstart.objective.head import make_head
from warmstart.objective.transcript_score import TranscriptErrors, edits

SPACE = "▁"  # how labels show the space before a word
NEVER = -1e4  # log-probability


class CTC(nn.Module):
    """A label or the blank at every position (Graves et al. 2006); the best path is read."""

    target: ClassVar = "text"
    predicts: ClassVar = "sequence"
    needs: ClassVar = frozenset()
    default_loss: ClassVar = staticmethod(ctc)
    task: ClassVar = "ctc"
    views: ClassVar = 1
    monitor: ClassVar = ("val/wer", "min")

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction):
        super().__init__()
        self.loss, self.labels = loss, spec.labels
        self.head = make_head(backbone, self.task, len(self.labels) + 1)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Log-probabilities (B, T, C + 1), the blank last, which is certain where there is only padding."""
        outputs = self.head(backbone(batch.x, batch.mask).tokens).float().log_softmax(-1)
        if batch.mask is None:
            return outputs
        padding = outputs.new_full(outputs.shape[-1:], NEVER)
        padding[-1] = 0
        return torch.where((batch.mask > 0)[:, :, None], outputs, padding)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Log-probabilities (B, T, C + 1) and one loss value per utterance."""
        outputs = self.predict(backbone, batch)
        values = self.loss(outputs, batch.y)
        return StepOutput(values.mean(), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Word error rate, its parts, and character error rate."""
        return {"errors": TranscriptErrors(self.read, self.spell)}

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """None: errors per word are no mean over utterances."""

    def read(self, outputs: Tensor) -> list[str]:
        """The text of each utterance's best path."""
        return [self.written([label for label, *_ in path]) for path in self.paths(outputs)]

    def spell(self, y: Tensor) -> list[str]:
        """The text of each row of labels (B, L)."""
        return [self.written([label for label in row if label >= 0]) for row in y.tolist()]

    def compare(self, outputs: Tensor, y: Tensor) -> list[tuple[int, str, str]]:
        """For each utterance by how many words they differ, what was said, and what was understood."""
        pairs = zip(self.spell(y), self.read(outputs))
        return [(sum(edits(said.split(), found.split())), said, found) for said, found in pairs]

    def written(self, labels: Sequence[int]) -> str:
        """A text from its labels."""
        return " ".join("".join(self.labels[label] for label in labels).replace(SPACE, " ").split())

    def paths(self, outputs: Tensor) -> list[list[tuple[int, int, int, float]]]:
        """The labels of each utterance's best path: number, first and last position, and mean log-probability."""
        best = outputs.max(-1)
        rows = []
        for numbers, values in zip(best.indices.tolist(), best.values.tolist()):
            path: list[tuple[int, int, int, float]] = []
            before = blank = len(self.labels)
            for position, (number, value) in enumerate(zip(numbers, values)):
                if number != blank and number == before:
                    label, start, last, mean = path[-1]
                    count = last - start + 1
                    path[-1] = (label, start, position, (mean * count + value) / (count + 1))
                elif number != blank:
                    path.append((number, position, position, value))
                before = number
            rows.append(path)
        return rows

    def answer(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per utterance: its text, how sure it is (the mean over labels), and when each word was said.

        Times are in seconds from the start.
        """
        return [self._record(path, spec.seconds) for path in self.paths(outputs)]

    def _record(self, path: list[tuple[int, int, int, float]], seconds: float) -> dict[str, Any]:
        words: list[list[tuple[int, int, int, float]]] = []
        for label in path:
            if not words or self.labels[label[0]].startswith(SPACE):
                words.append([])
            words[-1].append(label)
        times = [
            {
                "word": self.written([label for label, *_ in word]),
                "start": round(word[0][1] * seconds, 3),
                "end": round((word[-1][2] + 1) * seconds, 3),
            }
            for word in words
        ]
        sure = math.exp(sum(value for *_, value in path) / len(path)) if path else 0.0
        return {
            "text": self.written([label for label, *_ in path]),
            "confidence": round(sure, 6),
            "words": [time for time in times if time["word"]],
        }

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str] | None) -> list[str]:
        """Each utterance as it was said, and as it was understood."""
        found = self.read(self.predict(backbone, batch))
        return [f"{said} → **{text or '(nothing)'}**" for said, text in zip(self.spell(batch.y), found)]
