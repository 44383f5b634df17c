"""Early stopping on the validation metric, and pruning by a search."""

from __future__ import annotations

import warnings
from typing import Any

import pytorch_lightning as pl

from warmstart.core.errors import Pruned
from warmstart.training.checkpoint import better_metrics, is_better


def should_stop(waited: int, patience: int | None, step: int, min_steps: int) -> bool:
    """Return whether to stop: `waited` validations without an improvement, and at least `min_steps` steps."""
    return patience is not None and waited >= patience and step >= min_steps


class Patience(pl.Callback):
    """Stops the training early if the monitored metric does not improve.

    It keeps its own best value, since Lightning runs the callbacks that save checkpoints last.

    Args:
        monitor: the metric's name, and min or max.
        patience: validations in a row without an improvement.
        min_steps: minimum number of steps before stopping.
    """

    def __init__(self, monitor: tuple[str, str], patience: int, min_steps: int):
        self.monitor = monitor
        self.patience, self.min_steps = patience, min_steps
        self.best: float | None = None
        self.waited = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed run that was to be stopped at its checkpoint."""
        self._check(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the validations since the best value."""
        name, mode = self.monitor
        value = better_metrics(trainer.callback_metrics, self.monitor)[0][name]
        self.waited += 1
        if is_better(value, self.best, mode):
            self.best, self.waited = value, 0
        self._check(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the number of validations since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value and the number of validations since."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def _check(self, trainer: pl.Trainer) -> None:
        if self.best is not None and should_stop(self.waited, self.patience, trainer.global_step, self.min_steps):
            trainer.should_stop = True


class Pruning(pl.Callback):
    """Reports the metric to Optuna after every validation, with the number of steps so far.

    Args:
        trial: an Optuna trial.
        metric: the name of the validation metric.
    """

    def __init__(self, trial: Any, metric: str):
        self.trial, self.metric = trial, metric

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the metric; raise Pruned if the trial should be pruned."""
        metrics, _ = better_metrics(trainer.callback_metrics, pl_module.monitor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed run reports its last step twice
            self.trial.report(metrics[self.metric], trainer.global_step)
        if self.trial.should_prune():
            raise Pruned(f"pruned after {trainer.global_step} steps: other trials are better")
