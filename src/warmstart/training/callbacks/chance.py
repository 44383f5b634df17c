"""Warns if validation stays at chance although the training loss falls."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytorch_lightning as pl

from warmstart.core import screen

FALL = 0.7  # a mean training loss below this share of that of the first epoch has fallen


class ChanceWarning(pl.Callback):
    """Warns at the end of a training whose accuracy never exceeds that of the most frequent validation class.

    An accuracy exceeds it if it is larger by more than two standard errors. Losses that are negative have no such ratio
    and no warning.

    Args:
        share: share of the most frequent class in the validation rows.
        rows: number of validation rows.
    """

    metric: ClassVar[str] = "val/accuracy"

    def __init__(self, share: float, rows: int):
        self.share, self.limit = share, share + 2 * math.sqrt(share * (1 - share) / rows)
        self.first: float | None = None
        self.best = -math.inf

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the best accuracy."""
        self.best = max(self.best, float(trainer.callback_metrics[self.metric]))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the training loss of the first epoch."""
        if self.first is None and "train/loss" in trainer.callback_metrics:
            self.first = float(trainer.callback_metrics["train/loss"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the warning."""
        last = float(trainer.callback_metrics["train/loss"])
        if self.first is not None and 0 < last < FALL * self.first and self.best <= self.limit:
            screen.say(
                f"warning: the training loss fell from {self.first:.3g} to {last:.3g}, but {self.metric} stays at "
                f"{self.best:.3g}, as high as for the most frequent class ({self.share:.3g}): train for more steps "
                "(trainer.max_steps), or use a lower optimizer.lr or more labels",
                style="yellow",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return first loss and best accuracy."""
        return {"first": self.first, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore first loss and best accuracy."""
        self.first, self.best = state_dict["first"], state_dict["best"]
