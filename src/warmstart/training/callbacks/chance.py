"""Warns if validation stays at chance although the training loss falls."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytorch_lightning as pl

from warmstart.core import screen

FALL = 0.9  # a mean training loss below this share of that of the first epoch has fallen


class ChanceWarning(pl.Callback):
    """Warns at the end of a training if the accuracy is not above the share of the most frequent validation class.

    It is above it if it is larger by more than two standard errors.

    Args:
        share: share of the most frequent class in the validation rows.
        rows: number of validation rows.
    """

    metric: ClassVar[str] = "val/accuracy"

    def __init__(self, share: float, rows: int):
        self.share, self.limit = share, share + 2 * math.sqrt(share * (1 - share) / rows)
        self.first: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the training loss of the first epoch."""
        if self.first is None and "train/loss" in trainer.callback_metrics:
            self.first = float(trainer.callback_metrics["train/loss"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the warning."""
        if self.first is None or self.metric not in trainer.callback_metrics:
            return
        loss, accuracy = (float(trainer.callback_metrics[name]) for name in ("train/loss", self.metric))
        if 0 < loss < FALL * self.first and accuracy <= self.limit:
            screen.say(
                f"warning: the training loss fell from {self.first:.3g} to {loss:.3g}, but {self.metric} is "
                f"{accuracy:.3g} at the end, and the most frequent class has {self.share:.3g} of the rows: train for "
                "more steps (trainer.max_steps), or use a lower optimizer.lr or more labels",
                style="yellow",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the training loss of the first epoch."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the training loss of the first epoch."""
        self.first = state_dict["first"]
