"""Speech recognition: which labels were said, in order, without being told when."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Amount, Count, Whole
from warmstart.core.spec import Spec
from warmstart.loss.ctc import ctc
from warmstart.objective.beam import NGram, search
from warmstart.objective.head import make_head
from warmstart.objective.transcript_score import TranscriptErrors

SPACE = "▁"  # how labels show the space before a word
BLANK, BETWEEN = "<pad>", "|"  # what transformers calls the blank and the space
NEVER = -1e4  # log-probability


class CTC(Objective, nn.Module):
    """A label or the blank at every position (Graves et al. 2006).

    What is read is the best path, or with a beam the labels that are most probable over all paths, together with an
    n-gram of the training texts where there is one. Validation reads as testing and prediction do.

    Args:
        backbone: one whose positions are in the order of what is said.
        spec: what an example looks like.
        loss: of the log-probabilities.
        beam: hypotheses of a prefix beam search; 1 reads the best path.
        ngram: order of the n-gram of labels; 0 for none.
        ngram_weight: of its log-probability, beside that of the backbone.
    """

    target: ClassVar = "text"
    predicts: ClassVar = "sequence"
    default_loss: ClassVar = staticmethod(ctc)
    task: ClassVar = "ctc"
    monitor: ClassVar = ("val/wer", "min")
    abilities: ClassVar = frozenset({"examples", "take_over"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        beam: Count = 1,
        ngram: Whole = 0,
        ngram_weight: Amount = 0.5,
    ):
        super().__init__()
        if ngram and beam == 1:
            raise UserError(f"objective.ngram={ngram} joins in a beam search: set objective.beam too, such as to 10")
        self.loss, self.labels = loss, spec.labels
        self.beam, self.ngram_weight = beam, ngram_weight
        self.ngram = NGram(ngram, len(self.labels)) if ngram else None
        self.head = make_head(backbone, self.task, len(self.labels) + 1)

    def fit(self, y: Any) -> None:
        """Learn the n-gram from the training targets, a tensor (N, L) or padded to one, -1 beyond the end."""
        if self.ngram is not None:
            self.ngram.fit(y[:])

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Log-probabilities (B, T, C + 1), the blank last, which is certain where there is only padding."""
        outputs = self.head(backbone(batch.x, batch.mask).tokens).float().log_softmax(-1)
        if batch.mask is None:
            return outputs
        valid = backbone.token_mask(batch.mask)
        padding = outputs.new_full(outputs.shape[-1:], NEVER)
        padding[-1] = 0
        return torch.where(valid[:, :, None], outputs, padding)

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
        """The text of each utterance."""
        return [self.written(labels) for labels in self.found(outputs)]

    def spell(self, y: Tensor) -> list[str]:
        """The text of each row of labels (B, L)."""
        return [self.written([label for label in row if label >= 0]) for row in y.tolist()]

    def written(self, labels: Sequence[int]) -> str:
        """A text from its labels."""
        return " ".join("".join(self.labels[label] for label in labels).replace(SPACE, " ").split())

    def found(self, outputs: Tensor) -> list[list[int]]:
        """The labels of each utterance."""
        if self.beam > 1:
            return search(outputs, self.beam, self.ngram, self.ngram_weight)
        blank = len(self.labels)
        return [[label for label, _ in itertools.groupby(row) if label != blank] for row in outputs.argmax(-1).tolist()]

    def answer(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per utterance: its text, how sure it is (the mean over labels), and when each word was said.

        Times are in seconds from the start, on the best path for the text that is read.
        """
        return [self._record(path, spec.seconds) for path in align(outputs, self.found(outputs))]

    def _record(self, path: Spans, seconds: float) -> dict[str, Any]:
        words: list[Spans] = []
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

    def take_over(self, head: Mapping[str, Tensor], labels: Sequence[str]) -> bool:
        """Go on with a trained head of these labels and the blank, the last, where all of ours are among them.

        A label that is not may be there in the other case: many models write capitals only.
        """
        numbers = {label: number for number, label in enumerate(labels)}
        rows = [numbers.get(label, numbers.get(label.swapcase())) for label in self.labels] + [len(labels)]
        shapes = {name: (len(labels) + 1, *value.shape[1:]) for name, value in self.state_dict().items()}
        fits = shapes == {name: tuple(value.shape) for name, value in head.items()}
        if not fits or None in rows or len({*rows}) < len(rows):
            return False
        self.load_state_dict({name: value[rows] for name, value in head.items()})
        return True

    def export(self, folder: Path) -> None:
        """Write the labels as transformers reads them.

        Raises:
            UserError: there are pieces of words among them, which it has no form for, or its sign for a space.
        """
        from transformers import Wav2Vec2CTCTokenizer

        if any(label.startswith(SPACE) and label != SPACE for label in self.labels):
            raise UserError("transformers spells what was said by characters: train with data.pieces=null to export")
        if BETWEEN in self.labels:
            raise UserError(f"transformers writes {BETWEEN} for a space: take it out of the texts, and train again")
        names = [*(BETWEEN if label == SPACE else label for label in self.labels), BLANK]
        path = folder / "vocab.json"
        path.write_text(json.dumps({name: number for number, name in enumerate(names)}))
        Wav2Vec2CTCTokenizer(str(path), None, None, BLANK, BLANK, BETWEEN).save_pretrained(folder)

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str] | None) -> list[str]:
        """Each utterance as it was said, and as it was understood."""
        found = self.read(self.predict(backbone, batch))
        return [f"{said} → **{text or '(nothing)'}**" for said, text in zip(self.spell(batch.y), found)]


Spans = list[tuple[int, int, int, float]]


@torch.no_grad()
def align(outputs: Tensor, texts: Sequence[Sequence[int]]) -> list[Spans]:
    """Each utterance's labels: number, first and last position, and mean log-probability, on the best path for them.

    The algorithm of Viterbi (1967), in the lattice of CTC (Graves et al. 2006).

    Args:
        outputs: log-probabilities (B, T, C + 1), the blank last.
        texts: the labels of each utterance, no more than fit its positions.
    """
    blank = outputs.shape[2] - 1
    lengths = torch.tensor([[len(text)] for text in texts], device=outputs.device)
    states = torch.full((len(texts), 2 * max(1, int(lengths.max())) + 1), blank)
    for row, text in zip(states, texts):
        row[1 : 2 * len(text) : 2] = torch.tensor(text, dtype=torch.long)
    states = states.to(outputs.device)
    values = outputs.gather(2, states[:, None].expand(-1, outputs.shape[1], -1))
    can_skip = F.pad((states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2]), (2, 0))
    score = values[:, 0].clone()
    score[:, 2:] = -math.inf
    moves = []
    for now in values[:, 1:].unbind(1):
        one, two = (F.pad(score, (step, -step), value=-math.inf) for step in (1, 2))
        best = torch.stack([score, one, two.masked_fill(~can_skip, -math.inf)]).max(0)
        score = best.values + now
        moves.append(best.indices)
    place = 2 * lengths
    on_label = score.gather(1, (place - 1).clamp(min=0)) > score.gather(1, place)
    place = place - on_label.long()
    places = [place]
    for move in reversed(moves):
        place = place - move.gather(1, place)
        places.append(place)
    path = torch.cat(places[::-1], 1)
    sure = values.gather(2, path[:, :, None])[:, :, 0]
    return [_spans(*row) for row in zip(path.tolist(), sure.tolist(), texts)]


def _spans(path: list[int], values: list[float], text: Sequence[int]) -> Spans:
    """One utterance's labels from its path through the states (T,), of which the odd ones are labels."""
    spans = []
    for state, group in itertools.groupby(range(len(path)), path.__getitem__):
        positions = list(group)
        if state % 2:
            mean = sum(values[position] for position in positions) / len(positions)
            spans.append((text[state // 2], positions[0], positions[-1], mean))
    return spans
