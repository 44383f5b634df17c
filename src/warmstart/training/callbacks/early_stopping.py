"""What ends a run before its last step: validation that does not improve, and a search that prunes it."""

from __future__ import annotations

import warnings
from typing import Any

import pytorch_lightning as pl

from warmstart.core.errors import Pruned
from warmstart.training.checkpoint import is_better, judged


def is_over(waited: int, patience: int | None, step: int, min_steps: int | None) -> bool:
    """Whether to stop: the last `waited` validations were no better, and `min_steps` are done."""
    return patience is not None and waited >= patience and step >= (min_steps or 0)


class Patience(pl.Callback):
    """Asks the trainer to stop.

    Lightning calls those that keep checkpoints last, so this one compares with the best by itself.

    Args:
        monitor: the metric's name, and min or max.
        patience: validations in a row without an improvement.
        min_steps: never before this step.
    """

    def __init__(self, monitor: tuple[str, str], patience: int, min_steps: int | None):
        self.monitor = monitor
        self.patience, self.min_steps = patience, min_steps
        self.best: float | None = None
        self.waited = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed run whose checkpoint was the last."""
        self._check(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the validations since the best one."""
        name, mode = self.monitor
        value = judged(trainer.callback_metrics, self.monitor)[0][name]
        self.waited += 1
        if is_better(value, self.best, mode):
            self.best, self.waited = value, 0
        self._check(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def _check(self, trainer: pl.Trainer) -> None:
        if self.best is not None and is_over(self.waited, self.patience, trainer.global_step, self.min_steps):
            trainer.should_stop = True


class Pruning(pl.Callback):
    """Reports the metric after every validation, at the number of steps so far.

    Args:
        trial: an Optuna trial.
        metric: the name of the validation metric.
    """

    def __init__(self, trial: Any, metric: str):
        self.trial, self.metric = trial, metric

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; raise Pruned where the study says so."""
        metrics, _ = judged(trainer.callback_metrics, pl_module.monitor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed run reports its last step twice
            self.trial.report(metrics[self.metric], trainer.global_step)
        if self.trial.should_prune():
            raise Pruned(f"stopped after {trainer.global_step} steps: other trials do better")
