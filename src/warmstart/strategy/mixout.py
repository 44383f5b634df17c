"""Mixout: full finetuning with random weights replaced by their initial values in each step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective, Scale, Strategy
from warmstart.core.ranges import RightOpenUnitInterval
from warmstart.distributed.part import undivided


class Mixout(Strategy):
    """Replace each weight by its initial value with probability p in each step, rescaled to keep the expected weight.

    It applies to matrices and kernels of the backbone, not to embeddings, norms and biases. Source:
    Lee et al. (2020), "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models",
    https://arxiv.org/abs/1909.11299.

    Args:
        p: probability, 0 or more and below 1.
    """

    only_scales_learning_rates: ClassVar = False

    def __init__(self, p: RightOpenUnitInterval = 0.5):
        self.p = p
        self.initial: dict[str, Tensor] = {}

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return [("backbone.*", 1.0), ("objective.*", 1.0)]

    def prepare(self, backbone: Any) -> None:
        embeddings = {id(part.weight) for part in backbone.modules() if isinstance(part, nn.Embedding)}
        for name, value in backbone.named_parameters():
            if value.ndim > 1 and id(value) not in embeddings:
                self.initial[f"backbone.{name}"] = value.detach().clone()

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """Compute the step of the objective with mixed weights."""
        model = _Step(objective, backbone)
        parameters = dict(model.named_parameters())
        with undivided():
            mixed = {name: self._mixed(name, parameters[name]) for name in self.initial}
        return functional_call(model, mixed, (batch,))

    def _mixed(self, name: str, value: Tensor) -> Tensor:
        initial = self.initial[name] = self.initial[name].to(value.device)
        mixed = torch.where(torch.rand_like(value) < self.p, initial, value)
        return (mixed - self.p * initial) / (1 - self.p)


class _Step(nn.Module):
    def __init__(self, objective: Any, backbone: Any):
        super().__init__()
        self.backbone, self.objective = backbone, objective

    def forward(self, batch: Batch) -> StepOutput:
        return self.objective.step(self.backbone, batch)
