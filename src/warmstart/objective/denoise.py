"""Rebuild a clean input from a noisy one (Vincent et al. 2010)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Amount, RightOpenUnitInterval
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse


class Denoise(Objective, nn.Module):
    """Gaussian noise of `noise` standard deviations is added and a share `drop` of the inputs is set to the mean."""

    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    abilities: ClassVar = frozenset({"pictures"})

    def __init__(
        self, backbone: Backbone, spec: Spec, loss: LossFunction, noise: Amount = 1.0, drop: RightOpenUnitInterval = 0.0
    ):
        super().__init__()
        self.loss = loss
        self.noise, self.drop = noise, drop
        self.head = nn.Linear(backbone.width, math.prod(spec.shape))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """One loss value per example: its mean error over all inputs."""
        outputs = self.rebuild(backbone, self.corrupt(batch.x))
        values = self.loss(outputs, batch.x)
        return StepOutput(values.mean(), values.numel(), outputs)

    def corrupt(self, x: Tensor) -> Tensor:
        """Inputs with noise, of the same shape."""
        noisy = x + self.noise * torch.randn_like(x)
        if self.drop:
            noisy = noisy * (torch.rand_like(x) >= self.drop)
        return noisy

    def rebuild(self, backbone: Backbone, x: Tensor) -> Tensor:
        """The network's guess at the clean inputs, of the shape of x."""
        return self.head(backbone(x).pooled).view_as(x)

    def pictures(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        """Inputs, what the network saw, and what it rebuilt, each of the shape of the inputs."""
        noisy = self.corrupt(batch.x)
        return [batch.x, noisy, self.rebuild(backbone, noisy)]
