"""Scores of generated texts against a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torchmetrics import Metric

from warmstart.distributed.processes import all_values
from warmstart.objective import span_qa
from warmstart.objective.scores import edits
from warmstart.objective.text_metrics import exact_match, rouge_l

# Scores of a text, given the target and all correct answers.
ROW_SCORES: dict[str, Callable[[str, str, Sequence[str]], float]] = {
    "exact_match": lambda found, target, answers: exact_match(found, target),
    "rouge_l": lambda found, target, answers: rouge_l(found, target),
    "answer_match": lambda found, target, answers: span_qa.exact_match(found, answers),
    "f1": lambda found, target, answers: span_qa.f1(found, answers),
}


def word_errors(found: str, target: str) -> int:
    """Return the number of words to substitute, delete or insert."""
    return sum(edits(target.split(), found.split()))


ERROR_COUNTS: dict[str, Callable[[str, str], tuple[int, int]]] = {  # errors, and size of the target
    "wer": lambda found, target: (word_errors(found, target), len(target.split())),
    "cer": lambda found, target: (sum(edits(target, found)), len(target)),
}


def error_rates(pairs: Sequence[tuple[str, ...]]) -> dict[str, float]:
    """Return word and character error rate of pairs of a text and its reference: errors per word of all references."""
    rates = {}
    for name, count in ERROR_COUNTS.items():
        wrong, sizes = zip(*(count(*pair) for pair in pairs)) if pairs else ((), ())
        rates[name] = sum(wrong) / max(1, sum(sizes))
    return rates


def corpus_score(metric: BLEU | CHRF, pairs: Sequence[tuple[str, str]]) -> float:
    """Return a score of pairs of a text and its reference, from 0 to 1; 0 without pairs."""
    found, targets = zip(*pairs) if pairs else ((), ())
    return metric.corpus_score(list(found), [list(targets)]).score / 100 if pairs else 0.0


def normalized(normalize: Callable[[str], str], *texts: str) -> tuple[str, ...]:
    """Return normalized texts with single spaces."""
    return tuple(" ".join(normalize(text).split()) for text in texts)


class TextScores(Metric):
    """Means of the scores in ROW_SCORES, BLEU and chrF of all texts (sacrebleu, from 0 to 1), and error rates.

    `answer_match` and `f1` are those of SQuAD, the largest over the correct answers of a row; word and character error
    rates are of normalized texts.

    Args:
        decode: converts the outputs of a batch to texts.
        target_texts: converts the targets of a batch to texts.
        normalize: changes texts before error rates are computed.
        answers: converts the targets of a batch to lists of correct answers; None for the target only.

    `compared` holds the number of wrong words, the reference and the prediction of each row of the last batch.
    """

    full_state_update = False

    def __init__(
        self,
        decode: Callable[[Tensor], list[str]],
        target_texts: Callable[[Any], list[str]],
        normalize: Callable[[str], str] = str,
        answers: Callable[[Any], list[list[str]]] | None = None,
    ):
        super().__init__()
        self.decode, self.target_texts, self.normalize, self.answers = decode, target_texts, normalize, answers
        self.compared: list[tuple[int, str, str]] = []
        self.found: list[str] = []
        self.targets: list[str] = []
        self.correct: list[Sequence[str]] = []

    def update(self, outputs: Tensor, y: Any) -> None:
        """Add outputs and targets of a batch."""
        texts, targets = self.decode(outputs), self.target_texts(y)
        pairs = zip(texts, targets)
        self.compared = [(word_errors(*normalized(self.normalize, *pair)), *reversed(pair)) for pair in pairs]
        self.found += texts
        self.targets += targets
        self.correct += [[target] for target in targets] if self.answers is None else self.answers(y)

    def compute(self) -> dict[str, Any]:
        """Return the scores by name."""
        rows = list(zip(self.found, self.targets, self.correct))
        if self.distributed_available_fn is not None and self.distributed_available_fn():
            rows = [row for own in all_values(rows) for row in own]
        pairs, count = [row[:2] for row in rows], max(1, len(rows))
        scores = {name: sum(score(*row) for row in rows) / count for name, score in ROW_SCORES.items()}
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
            scores[name] = corpus_score(metric, pairs)
        return scores | error_rates([normalized(self.normalize, *pair) for pair in pairs])

    def reset(self) -> None:
        """Remove all rows."""
        super().reset()
        self.found, self.targets, self.correct = [], [], []
