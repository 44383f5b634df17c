"""Denoising autoencoder (Vincent et al. 2010)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import NonNegativeFloat, RightOpenUnitInterval
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse


class Denoise(Objective, nn.Module):
    """Reconstruct inputs from a copy with Gaussian noise and a share `drop` of the features set to the mean."""

    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    abilities: ClassVar = frozenset({"reconstructions"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        noise: NonNegativeFloat = 1.0,
        drop: RightOpenUnitInterval = 0.0,
    ):
        super().__init__()
        self.loss = loss
        self.noise, self.drop = noise, drop
        self.head = nn.Linear(backbone.width, math.prod(spec.shape))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over examples and the reconstructions, of the shape of the inputs."""
        outputs = self.reconstruct(backbone, self.corrupt(batch.x))
        values = self.loss(outputs, batch.x)
        return StepOutput(values.mean(), values.numel(), outputs)

    def corrupt(self, x: Tensor) -> Tensor:
        """Add noise to inputs and set some to 0, their mean."""
        noisy = x + self.noise * torch.randn_like(x)
        if self.drop:
            noisy = noisy * (torch.rand_like(x) >= self.drop)
        return noisy

    def reconstruct(self, backbone: Backbone, x: Tensor) -> Tensor:
        """Predict the clean inputs, of the shape of x."""
        return self.head(backbone(x).pooled).view_as(x)

    def reconstructions(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        """Return inputs, noisy inputs and reconstructions, each of the shape of the inputs."""
        noisy = self.corrupt(batch.x)
        return [batch.x, noisy, self.reconstruct(backbone, noisy)]
