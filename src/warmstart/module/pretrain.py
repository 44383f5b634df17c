"""Pretraining: an objective on a backbone's features, training all but what it keeps still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from warmstart.contracts import Augment, Backbone, Batch, Objective
from warmstart.module.lean import LeanModule
from warmstart.module.mean import RunningMean
from warmstart.module.optimization import configure
from warmstart.module.randomness import seed_step


class PretrainModule(LeanModule):
    """All randomness of a step (noise, masks, augmentation, dropout) is a function of `seed` and the step's number.

    A resumed run therefore draws what an undisturbed one would.
    """

    monitor: ClassVar = ("val/loss", "min")

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        optimizer: Callable[..., Any],
        scheduler: Callable[..., float],
        augment: Augment,
        seed: int,
    ):
        super().__init__()
        self.backbone, self.objective = backbone, objective
        self.optimizer, self.scheduler, self.augment, self.seed = optimizer, scheduler, augment, seed
        self.scales = {name: float(parameter.requires_grad) for name, parameter in self.named_parameters()}
        self.val_loss = RunningMean()

    def views(self, batch: Batch) -> Batch:
        """The augmented copies that the objective asks for, stacked along the batch."""
        count = self.objective.views
        if count == 1:
            return self.augment.mixed(Batch(self.augment(batch.x), batch.y, batch.mask))
        mask = None if batch.mask is None else torch.cat([batch.mask] * count)
        return Batch(torch.cat([self.augment(batch.x) for _ in range(count)]), batch.y, mask)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's mean loss."""
        seed_step(self.seed, self.trainer.fit_loop.total_batch_idx, self.device)
        if hasattr(self.objective, "follow") and not self.accumulation.count:
            self.objective.follow(self.backbone)
        return self.counted(self.objective.step(self.backbone, self.views(batch)))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same loss, with the same noise at every epoch."""
        seed_step(self.seed, batch_idx, self.device)
        if self.objective.views > 1:
            batch = self.views(batch)
        else:
            batch.x = self.augment.scale(batch.x)
        self.val_loss.update(self.objective.step(self.backbone, batch))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss, the objective's measures, and what it has to say of the loss."""
        self.log_dict({f"val/{name}": value for name, value in self.held_out().items()})

    def held_out(self) -> dict[str, float]:
        """Loss, measures and what the objective says of the loss, of the batches since the last time, by name."""
        loss = self.val_loss.compute()
        found = self.val_loss.measured()
        if hasattr(self.objective, "summary"):
            found |= self.objective.summary(loss, self.trainer.datamodule.spec)
        self.val_loss.reset()
        return {"loss": loss, **found}

    def configure_optimizers(self) -> dict[str, Any]:
        """What trains does so at the full rate."""
        return configure(
            self, self.scales, self.optimizer, self.scheduler, float(self.trainer.estimated_stepping_batches)
        )
