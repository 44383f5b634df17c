"""Stopping once validation has not improved for a while."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from warmstart.training.checkpoint import is_better, judged


def is_over(step: int, best_step: int, patience: int | None, min_steps: int | None) -> bool:
    """Whether to stop: `patience` steps without a better validation have passed, and `min_steps` are done."""
    return patience is not None and step - best_step >= patience and step >= (min_steps or 0)


class Patience(pl.Callback):
    """Asks the trainer to stop.

    Lightning calls those that keep checkpoints last, so this one compares with the best by itself.

    Args:
        monitor: the metric's name, and min or max.
        patience: steps without a better validation.
        min_steps: never before this step.
    """

    def __init__(self, monitor: tuple[str, str], patience: int, min_steps: int | None):
        self.monitor = monitor
        self.patience, self.min_steps = patience, min_steps
        self.best: float | None = None
        self.best_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed run whose checkpoint was the last."""
        self._check(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look how long ago the best was."""
        name, mode = self.monitor
        value = judged(trainer.callback_metrics, self.monitor)[0][name]
        if is_better(value, self.best, mode):
            self.best, self.best_step = value, trainer.global_step
        self._check(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best so far."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def _check(self, trainer: pl.Trainer) -> None:
        if self.best is not None and is_over(trainer.global_step, self.best_step, self.patience, self.min_steps):
            trainer.should_stop = True
