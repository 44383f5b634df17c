"""Rebuild hidden positions from the visible ones: BERT's idea (Devlin et al. 2019) on any stem's tokens."""

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
from warmstart.loss.cross_entropy import cross_entropy, is_likelihood
from warmstart.loss.mse import mse
from warmstart.objective.choice import choose
from warmstart.objective.head import make_head


class Masked(Objective, nn.Module):
    """A share `ratio` of each example's positions is chosen anew every step; the loss is over the chosen ones alone.

    Of the chosen positions a share `swap` shows what stands at some other position of the batch, and a share `keep` is
    shown as it is; the others are hidden.

    Args:
        backbone: one that can hide positions.
        spec: what an example looks like.
        loss: of the outputs at chosen positions.
        ratio: share of the positions that may be hidden; at least one of each example.
        swap: share of the chosen ones.
        keep: share of the chosen ones.
        whole: choose all positions of a word, or none.
    """

    needs: ClassVar = frozenset({"hide"})
    predicts: ClassVar = None  # what the backbone's targets are
    default_loss: ClassVar = MappingProxyType({"value": mse, "category": cross_entropy})
    task: ClassVar = "masked_lm"
    abilities: ClassVar = frozenset({"pictures", "examples"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        ratio: OpenUnitInterval = 0.5,
        swap: RightOpenUnitInterval = 0.0,
        keep: RightOpenUnitInterval = 0.0,
        whole: bool = False,
    ):
        super().__init__()
        if swap + keep >= 1:
            raise UserError(f"objective.swap={swap}, keep={keep}: together they must be below 1")
        self.loss = loss
        self.ratio, self.swap, self.keep, self.whole = ratio, swap, keep, whole
        self.is_category = backbone.target_kind == "category"
        self.head = make_head(backbone, self.task, backbone.target_size)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """One loss value per chosen position; the head is computed there only. Where none can be, the loss is 0."""
        targets = backbone.targets(batch.x)
        chosen = self.choose(backbone, batch)
        x, hidden = self.corrupt(backbone, batch.x, targets, chosen)
        outputs, wanted = self.head(backbone(x, batch.mask, hidden).tokens[chosen]), targets[chosen]
        values = self.loss(outputs, wanted)
        if not values.numel():
            return StepOutput(values.sum(), 0)
        says_more = self.is_category and not self.training
        measures = {"masked_accuracy": (outputs.argmax(-1) == wanted).float().mean()} if says_more else {}
        return StepOutput(values.mean(), values.numel(), measures=measures)

    def choose(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Chosen positions (B, T): the share `ratio` of those of each example that may be hidden, rounded."""
        return choose(backbone, batch, self.ratio, self.whole)

    def corrupt(self, backbone: Backbone, x: Tensor, targets: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs with some of the chosen positions swapped, and which positions (B, T) are to be hidden."""
        if not self.swap and not self.keep:
            return x, chosen
        lot = torch.rand(chosen.shape, device=chosen.device)
        if self.swap:
            swapped = chosen & (lot < self.swap)
            able = targets[backbone.maskable(x)]
            targets = targets.clone()
            targets[swapped] = able[torch.randint(max(1, len(able)), (int(swapped.sum()),), device=able.device)]
            x = backbone.assemble(targets)
        return x, chosen & (lot >= self.swap + self.keep)

    def pictures(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        """Inputs, what was visible, and the inputs with hidden positions rebuilt, each of the shape of the inputs."""
        targets = backbone.targets(batch.x)
        hidden = self.choose(backbone, batch)[:, :, None]
        guesses = self.head(backbone(batch.x, batch.mask, hidden[:, :, 0]).tokens)
        parts = [targets, targets.masked_fill(hidden, 0), torch.where(hidden, guesses, targets)]
        return [backbone.assemble(part) for part in parts]

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str]) -> list[str]:
        """Each example as text, with its hidden places as [true -> guess]."""
        if not self.is_category:
            return []
        hidden = self.choose(backbone, batch)
        guesses = self.head(backbone(batch.x, batch.mask, hidden).tokens[hidden]).argmax(-1).tolist()
        lines, guess = [], iter(guesses)
        for row, places in zip(batch.x.tolist(), hidden.tolist()):
            words: list[str] = []
            run: list[int] = []
            for number, is_hidden in zip(row, places):
                if is_hidden:
                    words += [decode(run), f"**[{decode([number])} → {decode([next(guess)])}]**"]
                    run = []
                else:
                    run.append(number)
            lines.append(" ".join([*words, decode(run)]))
        return lines

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """Perplexity of the chosen tokens, where the loss is their likelihood."""
        return {"perplexity": math.exp(min(loss, 700))} if is_likelihood(self.loss) else {}
