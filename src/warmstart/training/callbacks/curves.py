"""Training curves by step; a run whose loss is not finite is stopped."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl

from warmstart.core.errors import UserError


def check_training(loss: float, rate: float, step: int) -> None:
    """Raise UserError if the training loss has diverged."""
    if not math.isfinite(loss):
        raise UserError(
            f"diverged: the training loss is {loss} at step {step} (learning rate {rate:.3g}); try a lower optimizer.lr"
        )


def check_validation(loss: float, step: int) -> None:
    """Raise UserError if the validation loss has diverged."""
    if not math.isfinite(loss):
        raise UserError(f"diverged: the validation loss is {loss} at step {step}; try a lower optimizer.lr")


class Curves(pl.Callback):
    """Logs train/loss_step and learning_rate every `every` steps."""

    def __init__(self, every: int):
        self.every = every
        self.step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the current step of a resumed run."""
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log after an optimizer step; raise UserError if the loss has diverged."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        if self.step % self.every:
            return
        loss = float(pl_module.step_loss)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        check_training(loss, rate, trainer.global_step)
        trainer.logger.log_metrics({"train/loss_step": loss, "learning_rate": rate}, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise UserError if the validation loss has diverged."""
        check_validation(float(trainer.callback_metrics["val/loss"]), trainer.global_step)
