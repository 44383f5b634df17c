"""Scores of generated texts against a reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torchmetrics import Metric

from warmstart.objective import span_qa
from warmstart.objective.scores import edits
from warmstart.objective.text_metrics import exact_match, rouge_l

ROW_SCORES: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
    "answer_match": lambda found, target: span_qa.exact_match(found, [target]),
    "f1": lambda found, target: span_qa.f1(found, [target]),
}


class TextScores(Metric):
    """Means of the scores in ROW_SCORES, BLEU and chrF of all texts (sacrebleu, from 0 to 1), and word error rate.

    `answer_match` and `f1` are those of SQuAD.

    Args:
        decode: converts the outputs of a batch to texts.
        target_texts: converts the targets of a batch to texts.

    `compared` holds the number of wrong words, the reference and the prediction of each row of the last batch.
    """

    full_state_update = False

    def __init__(self, decode: Callable[[Tensor], list[str]], target_texts: Callable[[Tensor], list[str]]):
        super().__init__()
        self.decode, self.target_texts = decode, target_texts
        self.compared: list[tuple[int, str, str]] = []
        self.found: list[str] = []
        self.targets: list[str] = []

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add outputs and targets of a batch."""
        texts, targets = self.decode(outputs), self.target_texts(y)
        self.compared = [
            (sum(edits(target.split(), text.split())), target, text) for text, target in zip(texts, targets)
        ]
        self.found += texts
        self.targets += targets

    def compute(self) -> dict[str, Any]:
        """Return the scores by name."""
        pairs, count = list(zip(self.found, self.targets)), max(1, len(self.found))
        scores = {name: sum(score(*pair) for pair in pairs) / count for name, score in ROW_SCORES.items()}
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
            scores[name] = metric.corpus_score(self.found, [self.targets]).score / 100 if pairs else 0.0
        wrong = sum(sum(edits(target.split(), text.split())) for text, target in pairs)
        return {**scores, "wer": wrong / max(1, sum(len(target.split()) for target in self.targets))}

    def reset(self) -> None:
        """Remove all rows."""
        super().reset()
        self.found, self.targets = [], []
