"""The answer to a question as a piece of its context: where it starts and where it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.contracts import Backbone, Batch, LossFunction, Spec, StepOutput, UserError
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.head import make_head
from warmstart.objective.qa_score import AnswerScore, candidates, exact_match, f1, find_answers
from warmstart.ranges import Count

if TYPE_CHECKING:
    from warmstart.data.spans import Spans

POSITIONS = 2**16  # of the windows that are computed at once where no gradients are kept


class SpanQA(nn.Module):
    """Two scores per token, as BERT for SQuAD (Devlin et al. 2019); a long context comes in several windows.

    Args:
        backbone: of any kind that has features of tokens.
        spec: with a vocabulary.
        loss: of the scores of all positions of a window, positions being the classes.
        longest: most tokens of an answer.
        no_answer: the context need not hold an answer, as in SQuAD 2 (Rajpurkar et al. 2018); else one is always given.
    """

    target: ClassVar = "span"
    predicts: ClassVar = "category"
    needs: ClassVar = frozenset()
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "question_answering"
    views: ClassVar = 1
    monitor: ClassVar = ("val/f1", "max")

    def __init__(
        self, backbone: Backbone, spec: Spec, loss: LossFunction, longest: Count = 30, no_answer: bool = False
    ):
        super().__init__()
        if longest < 1:
            raise UserError(f"objective.longest={longest}: must be above 0")
        if not loss(torch.tensor([[0.0, float("-inf")]]), torch.tensor([0])).isfinite().all():
            raise UserError("loss: this one asks for answers at positions that can hold none: set label_smoothing=0")
        self.loss = loss
        self.answers = functools.partial(find_answers, longest=longest, no_answer=no_answer)
        self.head = make_head(backbone, self.task, 2)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Scores of each position as the start and as the end of the answer (W, T, 2)."""
        size = len(batch.x) if torch.is_grad_enabled() else max(1, POSITIONS // batch.x.shape[1])
        inputs = batch.x.split(size)
        masks = [None] * len(inputs) if batch.mask is None else batch.mask.split(size)
        return torch.cat([self.head(backbone(x, mask).tokens) for x, mask in zip(inputs, masks)])

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """The scores (W, T, 2), and one loss value per window: the mean of those of start and end."""
        outputs = self.predict(backbone, batch)
        scores = outputs.masked_fill(~candidates(batch.y)[:, :, None], float("-inf"))
        values = self.loss(scores.transpose(1, 2).flatten(0, 1), batch.y.places.flatten()).view(-1, 2).mean(1)
        return StepOutput(values.mean(), values.numel(), outputs)

    def metrics(self) -> dict[str, Any]:
        """Exact match and F1 over questions, 0 to 1, as SQuAD's evaluation script has them."""
        return {"exact_match": AnswerScore(exact_match, self.answers), "f1": AnswerScore(f1, self.answers)}

    def scores(self, outputs: Tensor, y: Spans) -> Tensor:
        """F1 of each question (B,)."""
        return torch.tensor([f1(found.text, golds) for found, golds in zip(self.answers(outputs, y), y.golds)])

    def answer(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per question: the answer, its start character in the context, and how likely it is.

        Where none is given, the answer is empty and has no start.
        """
        return [
            {"answer": found.text, "start": found.start, "probability": round(found.probability, 6)}
            for found in self.answers(outputs, batch.y)
        ]

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str]) -> list[str]:
        """Each question with the answer that is given, and the right ones in brackets."""
        lines = []
        for row, found in enumerate(self.answers(self.predict(backbone, batch), batch.y)):
            window = int((batch.y.question == row).int().argmax())
            begin = int(batch.y.context[window].int().argmax())
            question = decode(batch.x[window, :begin].tolist())
            golds = ", ".join(dict.fromkeys(batch.y.golds[row])) or "no answer"
            lines.append(f"{question} → **{found.text or 'no answer'}** ({golds})")
        return lines
