"""Masked modeling, as in BERT (Devlin et al. 2019), for the tokens of any stem."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import OpenUnitInterval, RightOpenUnitInterval
from warmstart.core.spec import Spec
from warmstart.distributed.part import gathered
from warmstart.loss.cross_entropy import cross_entropy, is_likelihood
from warmstart.loss.mse import mse
from warmstart.objective.head import make_head


class Masked(Objective, nn.Module):
    """Predict the share `ratio` of the positions, drawn at random in every step; the loss covers only these.

    Of the chosen positions, a share `swap` is replaced by random positions of the batch, and a share `keep` stays
    unchanged; the others are hidden.

    Args:
        backbone: a backbone that can hide positions.
        loss: loss of the outputs at chosen positions.
        ratio: share of the maskable positions to choose; at least one per example.
        swap: share of the chosen positions to replace.
        keep: share of the chosen positions to leave unchanged.
        whole_words: whether to choose all positions of a word, or none.
    """

    needs: ClassVar = frozenset({"hide"})
    predicts: ClassVar = None  # the kind of the backbone's targets
    default_loss: ClassVar = MappingProxyType({"value": mse, "category": cross_entropy})
    task: ClassVar = "masked_lm"
    abilities: ClassVar = frozenset({"reconstructions", "examples"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        ratio: OpenUnitInterval = 0.5,
        swap: RightOpenUnitInterval = 0.0,
        keep: RightOpenUnitInterval = 0.0,
        whole_words: bool = False,
    ):
        super().__init__()
        if swap + keep >= 1:
            raise UserError(f"objective.swap={swap}, keep={keep}: together they must be below 1")
        self.loss = loss
        self.ratio, self.swap, self.keep, self.whole_words = ratio, swap, keep, whole_words
        self.is_category = backbone.target_kind == "category"
        self.head = make_head(backbone, self.task, backbone.target_size)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over chosen positions, or 0 if there are none; the head is applied to these only."""
        targets = backbone.targets(batch.x)
        chosen = self.choose(backbone, batch)
        x, hidden = self.corrupt(backbone, batch.x, targets, chosen)
        outputs, labels = self.head(backbone(x, batch.mask, hidden).tokens[chosen]), targets[chosen]
        values = self.loss(outputs, labels)
        if not values.numel():
            return StepOutput(values.sum(), 0)
        has_accuracy = self.is_category and not self.training
        measures = {"masked_accuracy": (outputs.argmax(-1) == labels).float().mean()} if has_accuracy else {}
        return StepOutput(values.mean(), values.numel(), measures=measures)

    def choose(self, backbone: Backbone, batch: Batch) -> Tensor:
        return choose_positions(backbone, batch, self.ratio, self.whole_words)

    def corrupt(self, backbone: Backbone, x: Tensor, targets: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs with some of the chosen positions replaced, and the positions to hide (B, T)."""
        if not self.swap and not self.keep:
            return x, chosen
        draws = torch.rand(chosen.shape, device=chosen.device)
        if self.swap:
            swapped = chosen & (draws < self.swap)
            everything = gathered(x)
            values = targets if everything is x else backbone.targets(everything)
            source = values[backbone.maskable(everything)]
            targets = targets.clone()
            drawn = torch.rand(chosen.shape, device=chosen.device)[swapped]
            targets[swapped] = source[(drawn * len(source)).long().clamp(max=max(0, len(source) - 1))]
            x = backbone.assemble(targets)
        return x, chosen & (draws >= self.swap + self.keep)

    def reconstructions(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        """Return inputs, inputs with hidden positions set to 0, and inputs with these reconstructed."""
        targets = backbone.targets(batch.x)
        hidden = self.choose(backbone, batch)[:, :, None]
        predictions = self.head(backbone(batch.x, batch.mask, hidden[:, :, 0]).tokens)
        views = [targets, targets.masked_fill(hidden, 0), torch.where(hidden, predictions, targets)]
        return [backbone.assemble(view) for view in views]

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str]) -> list[str]:
        """Return each example as text, with hidden tokens as [true → predicted]."""
        if not self.is_category:
            return []
        hidden = self.choose(backbone, batch)
        predicted = self.head(backbone(batch.x, batch.mask, hidden).tokens[hidden]).argmax(-1).tolist()
        lines, predictions = [], iter(predicted)
        for row, is_hidden_row in zip(batch.x.tolist(), hidden.tolist()):
            pieces: list[str] = []
            run: list[int] = []
            for number, is_hidden in zip(row, is_hidden_row):
                if is_hidden:
                    pieces += [decode(run), f"**[{decode([number])} → {decode([next(predictions)])}]**"]
                    run = []
                else:
                    run.append(number)
            lines.append(" ".join([*pieces, decode(run)]))
        return lines

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """Return the perplexity of the chosen tokens, if the loss is their negative log-likelihood."""
        return {"perplexity": math.exp(min(loss, 700))} if is_likelihood(self.loss) else {}


def choose_positions(backbone: Backbone, batch: Batch, ratio: float, whole_words: bool = False) -> Tensor:
    """Return a random mask (B, T) of the share `ratio` of the maskable positions of each example; at least one.

    With `whole_words`, all positions of a word are chosen, or none.
    """
    maskable = backbone.maskable(batch.x)
    if batch.mask is not None:
        maskable = maskable & (batch.mask > 0)
    draws = torch.rand(maskable.shape, device=maskable.device)
    if whole_words:
        draws = draws.gather(1, backbone.word_ids(batch.x))
    draws = draws.masked_fill(~maskable, 2)
    count = (maskable.sum(1) * ratio).round().clamp(min=1).long()
    limit = draws.sort(1).values.gather(1, count[:, None] - 1)
    return (draws <= limit) & maskable
