"""Finetune everything, with weights put back to where they started at random."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective, Scale, Strategy
from warmstart.core.ranges import RightOpenUnitInterval


class Mixout(Strategy):
    """At each step each weight is, with probability p, the one it started from, and the mean is kept as it was.

    It is drawn for the matrices and kernels of the backbone; embeddings, norms and biases are left alone. Source:
    Lee et al. (2020), "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models",
    https://arxiv.org/abs/1909.11299.

    Args:
        p: from 0 to below 1.
    """

    only_claims: ClassVar = False

    def __init__(self, p: RightOpenUnitInterval = 0.5):
        self.p = p
        self.start: dict[str, Tensor] = {}

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Everything trains."""
        return [("backbone.*", 1.0), ("objective.*", 1.0)]

    def prepare(self, backbone: Any) -> None:
        """Remember the start point."""
        tables = {id(part.weight) for part in backbone.modules() if isinstance(part, nn.Embedding)}
        for name, value in backbone.named_parameters():
            if value.ndim > 1 and id(value) not in tables:
                self.start[f"backbone.{name}"] = value.detach().clone()

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """The objective's step with mixed weights."""
        whole = _Step(objective, backbone)
        own = dict(whole.named_parameters())
        return functional_call(whole, {name: self._mixed(name, own[name]) for name in self.start}, (batch,))

    def _mixed(self, name: str, value: Tensor) -> Tensor:
        start = self.start[name] = self.start[name].to(value.device)
        mixed = torch.where(torch.rand_like(value) < self.p, start, value)
        return (mixed - self.p * start) / (1 - self.p)


class _Step(nn.Module):
    def __init__(self, objective: Any, backbone: Any):
        super().__init__()
        self.backbone, self.objective = backbone, objective

    def forward(self, batch: Batch) -> StepOutput:
        return self.objective.step(self.backbone, batch)
