"""Speech recognition by connectionist temporal classification (CTC)."""

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
from warmstart.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.ctc import ctc
from warmstart.objective.beam import NGram, search
from warmstart.objective.head import make_head
from warmstart.objective.scores import TranscriptErrors, edits

SPACE = "▁"  # marks the space before a word in labels
BLANK, DELIMITER = "<pad>", "|"  # the blank and the space in transformers
NEVER = -1e4  # log-probability


class CTC(Objective, nn.Module):
    """Predict a label or the blank at every position (Graves et al. 2006).

    Outputs are decoded greedily (best path), or by beam search with an optional n-gram language model of the training
    texts. Validation, test and prediction use the same decoder.

    Args:
        backbone: a backbone whose positions are in order of time.
        loss: loss of log-probabilities and labels.
        beam: width of the prefix beam search; 1 for greedy decoding.
        ngram: order of the n-gram language model; 0 for none.
        ngram_weight: weight of the language model's log-probability.
    """

    target: ClassVar = "text"
    predicts: ClassVar = "sequence"
    default_loss: ClassVar = staticmethod(ctc)
    task: ClassVar = "ctc"
    monitor: ClassVar = ("val/wer", "min")
    bounds: ClassVar = (0.0, None)
    abilities: ClassVar = frozenset({"examples", "load_head"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        beam: PositiveInt = 1,
        ngram: NonNegativeInt = 0,
        ngram_weight: NonNegativeFloat = 0.5,
    ):
        super().__init__()
        if ngram and beam == 1:
            raise UserError(f"objective.ngram={ngram} needs a beam search: set objective.beam too, such as to 10")
        self.loss, self.labels = loss, spec.labels
        self.beam, self.ngram_weight = beam, ngram_weight
        self.searched: tuple[Tensor | None, list[list[int]]] = (None, [])
        self.ngram = NGram(ngram, len(self.labels)) if ngram else None
        self.head = make_head(backbone, self.task, len(self.labels) + 1)

    def fit(self, y: Any) -> None:
        """Fit the n-gram language model to the training targets (N, L), padded with -1."""
        if self.ngram is not None:
            self.ngram.fit(y[:])

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return log-probabilities (B, T, C + 1), the blank last; at padding the blank has probability 1."""
        outputs = self.head(backbone(batch.x, batch.mask).tokens).float().log_softmax(-1)
        if batch.mask is None:
            return outputs
        valid = backbone.token_mask(batch.mask)
        padding = outputs.new_full(outputs.shape[-1:], NEVER)
        padding[-1] = 0
        return torch.where(valid[:, :, None], outputs, padding)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over utterances and the log-probabilities (B, T, C + 1)."""
        outputs = self.predict(backbone, batch)
        values = self.loss(outputs, batch.y)
        return StepOutput(values.mean(), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Return word error rate, its components by kind of error, and character error rate."""
        return {"errors": TranscriptErrors(self.decode, self.target_texts)}

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the number of wrong words and of words of each utterance (B, 2)."""
        pairs = zip(self.target_texts(y), self.decode(outputs))
        return torch.tensor([(sum(edits(known.split(), found.split())), len(known.split())) for known, found in pairs])

    def decode(self, outputs: Tensor) -> list[str]:
        """Return the predicted text of each utterance."""
        return [self.to_text(labels) for labels in self.decode_labels(outputs)]

    def target_texts(self, y: Tensor) -> list[str]:
        """Return the text of each row of labels (B, L)."""
        return [self.to_text([label for label in row if label >= 0]) for row in y.tolist()]

    def to_text(self, labels: Sequence[int]) -> str:
        """Join labels to a text."""
        return " ".join("".join(self.labels[label] for label in labels).replace(SPACE, " ").split())

    def decode_labels(self, outputs: Tensor) -> list[list[int]]:
        """Return the predicted labels of each utterance."""
        if self.beam > 1:
            if self.searched[0] is not outputs:  # of the same batch, metrics and scores are computed
                self.searched = outputs, search(outputs, self.beam, self.ngram, self.ngram_weight)
            return self.searched[1]
        blank = len(self.labels)
        return [[label for label, _ in itertools.groupby(row) if label != blank] for row in outputs.argmax(-1).tolist()]

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per utterance: its text, confidence (geometric mean over labels) and the times of its words.

        Times are in seconds, from the best alignment of the predicted text.
        """
        return [self._record(path, spec.seconds) for path in align(outputs, self.decode_labels(outputs))]

    def _record(self, path: Spans, seconds: float) -> dict[str, Any]:
        words: list[Spans] = []
        for label in path:
            if not words or self.labels[label[0]].startswith(SPACE):
                words.append([])
            words[-1].append(label)
        times = [
            {
                "word": self.to_text([label for label, *_ in word]),
                "start": round(word[0][1] * seconds, 3),
                "end": round((word[-1][2] + 1) * seconds, 3),
            }
            for word in words
        ]
        confidence = math.exp(sum(value for *_, value in path) / len(path)) if path else 0.0
        return {
            "text": self.to_text([label for label, *_ in path]),
            "confidence": round(confidence, 6),
            "words": [time for time in times if time["word"]],
        }

    def load_head(self, head: Mapping[str, Tensor], labels: Sequence[str]) -> bool:
        """Load a trained head with other labels, if it has all of ours; return whether it was loaded.

        The blank is the last output of the head. Labels also match in the other case, because many models predict
        capitals only.
        """
        index = {label: number for number, label in enumerate(labels)}
        rows = [index.get(label, index.get(label.swapcase())) for label in self.labels] + [len(labels)]
        shapes = {name: (len(labels) + 1, *value.shape[1:]) for name, value in self.state_dict().items()}
        same_shapes = shapes == {name: tuple(value.shape) for name, value in head.items()}
        if not same_shapes or None in rows or len({*rows}) < len(rows):
            return False
        self.load_state_dict({name: value[rows] for name, value in head.items()})
        return True

    def export(self, folder: Path) -> None:
        """Write the labels as a CTC tokenizer of transformers.

        Raises:
            UserError: a label is a subword, which that tokenizer does not support, or is its word delimiter.
        """
        from transformers import Wav2Vec2CTCTokenizer

        if any(label.startswith(SPACE) and label != SPACE for label in self.labels):
            raise UserError(
                "transformers supports CTC with single characters only: train with data.pieces=null to export"
            )
        if DELIMITER in self.labels:
            raise UserError(f"transformers uses {DELIMITER} for the space: remove it from the texts, and train again")
        names = [*(DELIMITER if label == SPACE else label for label in self.labels), BLANK]
        path = folder / "vocab.json"
        path.write_text(json.dumps({name: number for number, name in enumerate(names)}))
        Wav2Vec2CTCTokenizer(str(path), None, None, BLANK, BLANK, DELIMITER).save_pretrained(folder)

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str] | None) -> list[str]:
        """Return the reference and the predicted text of each utterance."""
        predicted = self.decode(self.predict(backbone, batch))
        return [f"{target} → **{text or '(nothing)'}**" for target, text in zip(self.target_texts(batch.y), predicted)]


Spans = list[tuple[int, int, int, float]]


@torch.no_grad()
def align(outputs: Tensor, texts: Sequence[Sequence[int]]) -> list[Spans]:
    """Return the forced alignment: label, first and last position, and mean log-probability of each label.

    Uses the Viterbi algorithm (1967) in the CTC lattice (Graves et al. 2006).

    Args:
        outputs: log-probabilities (B, T, C + 1), the blank last.
        texts: labels of each utterance, for which its positions suffice.
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
    state = 2 * lengths
    on_label = score.gather(1, (state - 1).clamp(min=0)) > score.gather(1, state)
    state = state - on_label.long()
    path = [state]
    for move in reversed(moves):
        state = state - move.gather(1, state)
        path.append(state)
    states_on_path = torch.cat(path[::-1], 1)
    log_probabilities = values.gather(2, states_on_path[:, :, None])[:, :, 0]
    return [_spans(*row) for row in zip(states_on_path.tolist(), log_probabilities.tolist(), texts)]


def _spans(path: list[int], values: list[float], text: Sequence[int]) -> Spans:
    """Return the spans of one utterance from its path of states (T,); odd states are labels, even ones blanks."""
    spans = []
    for state, group in itertools.groupby(range(len(path)), path.__getitem__):
        positions = list(group)
        if state % 2:
            mean = sum(values[position] for position in positions) / len(positions)
            spans.append((text[state // 2], positions[0], positions[-1], mean))
    return spans
