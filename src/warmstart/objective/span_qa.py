"""Extractive question answering: predict the start and end of the answer in the context."""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.head import make_head

if TYPE_CHECKING:
    from warmstart.data.preprocess.spans import Spans


POSITIONS = 2**16  # positions computed at once in evaluation


class SpanQA(Objective, nn.Module):
    """Start and end scores per token, as in BERT for SQuAD (Devlin et al. 2019); long contexts have several windows.

    Args:
        backbone: a backbone with token features.
        spec: spec with a vocabulary.
        loss: classification loss over the positions of a window.
        longest: maximum number of tokens of an answer.
        no_answer: whether a question may have no answer, as in SQuAD 2 (Rajpurkar et al. 2018).
    """

    target: ClassVar = "span"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "question_answering"
    monitor: ClassVar = ("val/f1", "max")
    bounds: ClassVar = (0.0, 1.0)
    abilities: ClassVar = frozenset({"examples"})

    def __init__(
        self, backbone: Backbone, spec: Spec, loss: LossFunction, longest: PositiveInt = 30, no_answer: bool = False
    ):
        super().__init__()
        if not loss(torch.tensor([[0.0, float("-inf")]]), torch.tensor([0])).isfinite().all():
            raise UserError("loss: it is infinite where positions are excluded: set loss.label_smoothing=0")
        self.loss = loss
        self.answers = functools.partial(find_answers, longest=longest, no_answer=no_answer)
        self.head = make_head(backbone, self.task, 2)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the scores of each position as start and as end of the answer (W, T, 2)."""
        size = len(batch.x) if torch.is_grad_enabled() else max(1, POSITIONS // batch.x.shape[1])
        inputs = batch.x.split(size)
        masks = [None] * len(inputs) if batch.mask is None else batch.mask.split(size)
        return torch.cat([self.head(backbone(x, mask).tokens) for x, mask in zip(inputs, masks)])

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the loss, averaged over start and end and over windows, and the scores (W, T, 2)."""
        outputs = self.predict(backbone, batch)
        scores = outputs.masked_fill(~candidates(batch.y)[:, :, None], float("-inf"))
        values = self.loss(scores.transpose(1, 2).flatten(0, 1), batch.y.positions.flatten()).view(-1, 2).mean(1)
        return StepOutput(values.mean(), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Return exact match and F1 over questions, as in the evaluation script of SQuAD."""
        return {"exact_match": AnswerScore(exact_match, self.answers), "f1": AnswerScore(f1, self.answers)}

    def scores(self, outputs: Tensor, y: Spans) -> Tensor:
        """Return the F1 score of each question (B,)."""
        return torch.tensor([f1(found.text, golds) for found, golds in zip(self.answers(outputs, y), y.golds)])

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per question: the answer, its first character in the context and its probability.

        Without an answer, the text is empty and the start is None.
        """
        return [
            {"answer": found.text, "start": found.start, "probability": round(found.probability, 6)}
            for found in self.answers(outputs, batch.y)
        ]

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str]) -> list[str]:
        """Return each question with the predicted answer, and the correct answers in parentheses."""
        lines = []
        for row, found in enumerate(self.answers(self.predict(backbone, batch), batch.y)):
            window = int((batch.y.question == row).int().argmax())
            begin = int(batch.y.context[window].int().argmax())
            question = decode(batch.x[window, :begin].tolist())
            golds = ", ".join(dict.fromkeys(batch.y.golds[row])) or "no answer"
            lines.append(f"{question} → **{found.text or 'no answer'}** ({golds})")
        return lines


ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)
CHARACTER = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"  # Han, kana
PIECE = re.compile(f"{CHARACTER}|(?:(?!{CHARACTER})\\S)+")
EAST_ASIAN = re.compile(CHARACTER)


class Found(NamedTuple):
    """A predicted answer and its probability within its window; without an answer, `text` is empty and `start` None."""

    text: str
    start: int | None
    probability: float


def candidates(y: Spans) -> Tensor:
    """Return the positions where an answer may start or end (W, T): the context, and position 0 for no answer."""
    allowed = y.context.clone()
    allowed[:, 0] = True
    return allowed


def find_answers(outputs: Tensor, y: Spans, longest: int, no_answer: bool) -> list[Found]:
    """Return the best answer to each question over its windows: the largest sum of start and end scores.

    Args:
        outputs: scores of each position as start and as end (W, T, 2).
        y: windows of B questions.
        longest: maximum number of tokens of an answer.
        no_answer: whether to predict no answer if position 0 scores above the best answer in every window.
    """
    hidden = float("-inf")
    scores = outputs.float().nan_to_num(hidden, float("inf"), hidden)
    start, end = scores.masked_fill(~y.context[:, :, None], hidden).unbind(-1)
    reach, last = F.max_pool1d(F.pad(end, (0, longest - 1), value=hidden)[:, None], longest, 1, return_indices=True)
    best, first = (start + reach[:, 0]).max(1)
    last = last[:, 0].gather(1, first[:, None])[:, 0]
    head = torch.searchsorted(y.question, torch.arange(len(y.texts), device=y.question.device))
    best, window = _first_largest(best, y.question, head)
    null, null_window = _first_largest(-scores[:, 0].sum(-1), y.question, head)
    is_none = best == hidden
    if no_answer:
        is_none = is_none | (-null > best)
    total = scores.masked_fill(~candidates(y)[:, :, None], hidden).logsumexp(1).sum(-1)
    probability = torch.where(is_none, -null - total[null_window], best - total[window]).exp()
    begin, stop = y.offsets[window, first[window], 0], y.offsets[window, last[window], 1]
    found = []
    for text, nothing, a, b, p in zip(
        y.texts, is_none.tolist(), begin.tolist(), stop.tolist(), probability.tolist(), strict=True
    ):
        piece = "" if nothing else text[a:b]
        found.append(Found(piece.strip(), None if nothing else a + len(piece) - len(piece.lstrip()), p))
    return found


def _first_largest(values: Tensor, question: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum over the windows of each question (B,), and the index of that window (B,)."""
    rank = torch.arange(len(values), device=values.device) - head[question]
    grid = values.new_full((len(head), int(rank.max()) + 1), float("-inf"))
    grid[question, rank] = values
    largest, index = grid.max(1)
    return largest, head + index


def normalize(text: str, east_asian: bool = False) -> str:
    """Lower-case a text and remove punctuation, articles and extra spaces (Rajpurkar et al. 2016).

    East Asian texts are normalized as in the evaluation of MLQA (Lewis et al. 2020), after CMRC 2018 (Cui et al. 2019):
    Unicode punctuation is removed, articles are kept, and every Chinese character or kana is a separate word.
    """
    text = "".join(
        c for c in text.lower() if c not in PUNCTUATION and not (east_asian and unicodedata.category(c)[0] == "P")
    )
    return " ".join(PIECE.findall(text) if east_asian else ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1 if the normalized prediction is one of the correct answers, else 0; "" means no answer."""
    ours, theirs = _comparable(prediction, golds)
    return float(ours in theirs)


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Return the largest F1 score of the words of the prediction against each correct answer."""
    ours, theirs = _comparable(prediction, golds)
    return max(_overlap(ours.split(), gold.split()) for gold in theirs)


def _comparable(prediction: str, golds: Sequence[str]) -> tuple[str, list[str]]:
    """Normalize a prediction and the correct answers; answers that become empty are dropped, as in SQuAD 2."""
    east_asian = any(EAST_ASIAN.search(text) for text in (prediction, *golds))
    theirs = [gold for gold in (normalize(text, east_asian) for text in golds) if gold]
    return normalize(prediction, east_asian), theirs or [""]


def _overlap(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))


class AnswerScore(MeanMetric):
    """Mean of a score over questions.

    Args:
        score: function of the predicted and the correct answers.
        answers: function of outputs (W, T, 2) and windows of B questions that returns B answers.
    """

    higher_is_better = True

    def __init__(self, score: Callable[[str, Sequence[str]], float], answers: Callable[[Tensor, Spans], list[Found]]):
        super().__init__()
        self.score, self.answers = score, answers

    def update(self, outputs: Tensor, y: Spans) -> None:
        super().update([self.score(found.text, golds) for found, golds in zip(self.answers(outputs, y), y.golds)])
