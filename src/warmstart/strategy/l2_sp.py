"""Finetune everything, pulled to where it started."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective, Scale, Strategy
from warmstart.core.ranges import Amount, Positive
from warmstart.strategy.blocks import depth_of


class L2SP(Strategy):
    """Adds alpha / 2 ||w - w0||^2 over the backbone and beta / 2 ||w||^2 over the head to the loss.

    It stands in the place of weight decay, which pulls to zero: set optimizer.weight_decay=0. The training loss that is
    logged holds it. Source: Li et al. (2018), "Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks", https://arxiv.org/abs/1802.01483.

    Args:
        alpha: pull of the backbone to its start point, 0 or more.
        beta: pull of the head to zero, 0 or more.
        decay: a depth is pulled at this share of the pull on the depth before it, above 0; 1 for all alike.
    """

    only_claims: ClassVar = False

    def __init__(self, alpha: Amount = 0.1, beta: Amount = 0.01, decay: Positive = 1.0):
        self.alpha, self.beta, self.decay = alpha, beta, decay
        self.start: dict[str, Tensor] = {}
        self.strengths: dict[str, float] = {}

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Everything trains."""
        return [("backbone.*", 1.0), ("objective.*", 1.0)]

    def prepare(self, backbone: Any) -> None:
        """Remember the start point."""
        self.start = {name: value.detach().clone() for name, value in backbone.named_parameters()}
        self.strengths = {name: self.alpha * self.decay**depth for name, depth in depth_of(backbone).items()}

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """The objective's step, with the pull in the loss."""
        output = objective.step(backbone, batch)
        held = dict(backbone.named_parameters())
        loss = output.loss
        for name, value in held.items():
            self.start[name] = self.start[name].to(value.device)
            loss = loss + self.strengths[name] / 2 * (value - self.start[name]).square().sum()
        shared = {id(value) for value in held.values()}
        for value in objective.parameters():
            if id(value) not in shared:
                loss = loss + self.beta / 2 * value.square().sum()
        return replace(output, loss=loss)
