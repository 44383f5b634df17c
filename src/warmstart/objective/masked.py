"""Rebuild hidden positions from the visible ones: BERT's idea (Devlin et al. 2019) on any stem's tokens."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.contracts import Backbone, Batch, LossFunction, Spec, StepOutput, UserError
from warmstart.loss.mse import mse


class Masked(nn.Module):
    """A share `ratio` of each example's positions is hidden; the loss is over the hidden positions alone."""

    target: ClassVar = None
    predicts: ClassVar = "value"
    needs: ClassVar = frozenset({"hide"})
    default_loss: ClassVar = staticmethod(mse)
    views: ClassVar = 1

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, ratio: float = 0.5):
        super().__init__()
        if not 0 < ratio < 1:
            raise UserError(f"objective.ratio={ratio}: must be above 0 and below 1")
        self.loss = loss
        self.ratio = ratio
        self.head = nn.Linear(backbone.width, backbone.target_size)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """One loss value per hidden position; the head is computed there only."""
        targets = backbone.targets(batch.x)
        hidden = self.choose(targets)
        tokens = backbone(batch.x, batch.mask, hidden).tokens
        values = self.loss(self.head(tokens[hidden]), targets[hidden])
        return StepOutput(values.mean(), values.numel())

    def choose(self, targets: Tensor) -> Tensor:
        """Hidden positions (B, T), the same number in every example and at least one."""
        batch, length = targets.shape[:2]
        count = min(length, max(1, round(length * self.ratio)))
        ranks = torch.rand(batch, length, device=targets.device).argsort(1).argsort(1)
        return ranks < count

    def pictures(self, backbone: Backbone, x: Tensor) -> list[Tensor]:
        """Inputs, what was visible, and the inputs with hidden positions rebuilt, each of the shape of x."""
        targets = backbone.targets(x)
        hidden = self.choose(targets)[:, :, None]
        guesses = self.head(backbone(x, None, hidden[:, :, 0]).tokens)
        parts = [targets, targets.masked_fill(hidden, 0), torch.where(hidden, guesses, targets)]
        return [backbone.assemble(part) for part in parts]

    def metrics(self) -> dict[str, Any]:
        """None: the loss says it all."""
        return {}
