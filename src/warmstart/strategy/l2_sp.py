"""L2-SP: full finetuning with an L2 penalty towards the initial weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective, Scale, Strategy
from warmstart.core.ranges import NonNegativeFloat, PositiveFloat
from warmstart.strategy.blocks import depth_of


class L2SP(Strategy):
    """Add alpha / 2 ||w - w0||^2 over the backbone and beta / 2 ||w||^2 over the head to the loss.

    It replaces weight decay: set optimizer.weight_decay=0. The logged training loss includes the penalty.

    Source: Li et al. (2018), "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", https://arxiv.org/abs/1802.01483.

    Args:
        alpha: penalty of the backbone's distance to its initial weights, 0 or more.
        beta: penalty of the head's weights, 0 or more.
        decay: factor of the penalty from one depth to the next, above 0; 1 for the same penalty at all depths.
    """

    only_scales_learning_rates: ClassVar = False

    def __init__(self, alpha: NonNegativeFloat = 0.1, beta: NonNegativeFloat = 0.01, decay: PositiveFloat = 1.0):
        self.alpha, self.beta, self.decay = alpha, beta, decay
        self.initial: dict[str, Tensor] = {}
        self.strengths: dict[str, float] = {}

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return [("backbone.*", 1.0), ("objective.*", 1.0)]

    def prepare(self, backbone: Any) -> None:
        self.initial = {name: value.detach().clone() for name, value in backbone.named_parameters()}
        self.strengths = {name: self.alpha * self.decay**depth for name, depth in depth_of(backbone).items()}

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """Add the penalty to the loss of the objective."""
        output = objective.step(backbone, batch)
        parameters = dict(backbone.named_parameters())
        loss = output.loss
        for name, value in parameters.items():
            self.initial[name] = self.initial[name].to(value.device)
            loss = loss + self.strengths[name] / 2 * (value - self.initial[name]).square().sum()
        shared = {id(value) for value in parameters.values()}
        for value in objective.parameters():
            if id(value) not in shared:
                loss = loss + self.beta / 2 * value.square().sum()
        return replace(output, loss=loss)
