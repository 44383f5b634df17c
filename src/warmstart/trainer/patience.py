"""Stopping once validation has not improved for a while."""

from __future__ import annotations

import pytorch_lightning as pl

from warmstart.trainer.checkpoint import BestAndLast


def is_over(step: int, best_step: int, patience: int | None, min_steps: int | None) -> bool:
    """Whether to stop: `patience` steps without a better validation have passed, and `min_steps` are done."""
    return patience is not None and step - best_step >= patience and step >= (min_steps or 0)


class Patience(pl.Callback):
    """Asks the trainer to stop; comes after the callback that knows the best step.

    Args:
        best: keeps the best checkpoint.
        patience: steps without a better validation.
        min_steps: never before this step.
    """

    def __init__(self, best: BestAndLast, patience: int, min_steps: int | None):
        self.best, self.patience, self.min_steps = best, patience, min_steps

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look how long ago the best was."""
        if is_over(trainer.global_step, self.best.best_step, self.patience, self.min_steps):
            trainer.should_stop = True
