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

ROW_SCORES: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
    "answer_match": lambda found, target: span_qa.exact_match(found, [target]),
    "f1": lambda found, target: span_qa.f1(found, [target]),
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

    `answer_match` and `f1` are those of SQuAD; word and character error rates are of normalized texts.

    Args:
        decode: converts the outputs of a batch to texts.
        target_texts: converts the targets of a batch to texts.
        normalize: changes texts before error rates are computed.

    `compared` holds the number of wrong words, the reference and the prediction of each row of the last batch.
    """

    full_state_update = False

    def __init__(
        self,
        decode: Callable[[Tensor], list[str]],
        target_texts: Callable[[Tensor], list[str]],
        normalize: Callable[[str], str] = str,
    ):
        super().__init__()
        self.decode, self.target_texts, self.normalize = decode, target_texts, normalize
        self.compared: list[tuple[int, str, str]] = []
        self.found: list[str] = []
        self.targets: list[str] = []

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add outputs and targets of a batch."""
        texts, targets = self.decode(outputs), self.target_texts(y)
        pairs = zip(texts, targets)
        self.compared = [(word_errors(*normalized(self.normalize, *pair)), *reversed(pair)) for pair in pairs]
        self.found += texts
        self.targets += targets

    def compute(self) -> dict[str, Any]:
        """Return the scores by name."""
        divided = self.distributed_available_fn is not None and self.distributed_available_fn()
        pairs = list(zip(self.found, self.targets))
        if divided:
            pairs = [pair for own in all_values(pairs) for pair in own]
        count = max(1, len(pairs))
        scores = {name: sum(score(*pair) for pair in pairs) / count for name, score in ROW_SCORES.items()}
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
            scores[name] = corpus_score(metric, pairs)
        return scores | error_rates([normalized(self.normalize, *pair) for pair in pairs])

    def reset(self) -> None:
        """Remove all rows."""
        super().reset()
        self.found, self.targets = [], []
