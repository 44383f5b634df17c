"""Tells a search how a run goes, and stops it when the search says that others do better."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from warmstart.contracts import Pruned


class Pruning(pl.Callback):
    """Reports after every validation, at the number of steps that the trial has been given over all its seeds.

    What is reported is the mean of the finished seeds' scores and this run's present one, so that a trial races on
    with its next seed only while it holds its own.

    Args:
        trial: an Optuna trial.
        metric: the name of the validation metric.
        scores: those of the trial's seeds that are done.
        steps: the steps that they took.
    """

    def __init__(self, trial: Any, metric: str, scores: Sequence[float], steps: int):
        self.trial, self.metric, self.scores, self.steps = trial, metric, list(scores), steps

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; raise Pruned where the study says so."""
        value = float(trainer.callback_metrics[self.metric])
        step = self.steps + trainer.global_step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed run reports its last step twice
            self.trial.report(statistics.mean([*self.scores, value]), step)
        if self.trial.should_prune():
            seed = f", in seed {len(self.scores) + 1}" if self.scores else ""
            raise Pruned(f"stopped after {trainer.global_step} steps{seed}: other trials do better")
