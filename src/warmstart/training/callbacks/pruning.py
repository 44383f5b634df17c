"""Tells a search how a run goes, and stops it when the search says that others do better."""

from __future__ import annotations

import warnings
from typing import Any

import pytorch_lightning as pl

from warmstart.core.errors import Pruned
from warmstart.training.checkpoint import judged


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
