"""How many tokens a second training gets through."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.training.budget import Stopwatch


class Throughput(pl.Callback):
    """tokens_per_second every `every` steps, for examples made of tokens: padding and validation do not count.

    It is not written to metrics.csv, which a rerun reproduces.
    """

    def __init__(self, every: int):
        self.every = every
        self.watch = Stopwatch()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin counting."""
        self.counts = trainer.datamodule.spec.vocabulary is not None
        self._restart(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Let the clock run."""
        self.watch.start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the next training batch."""
        self.watch.stop()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count on the device; read it and the clock every n steps."""
        if not self.counts:
            return
        self.tokens = self.tokens + valid_positions(batch)
        if trainer.global_step % self.every == 0 and trainer.global_step > self.first_step:
            rate = float(self.tokens) / self.watch.seconds
            trainer.logger.log_beside({"tokens_per_second": rate}, trainer.global_step)
            self._restart(trainer)
            self.watch.start()

    def _restart(self, trainer: pl.Trainer) -> None:
        self.watch, self.first_step = Stopwatch(), trainer.global_step
        self.tokens: Tensor | int = 0


def valid_positions(batch: Batch) -> Tensor | int:
    """Positions of a batch (B, T) that are no padding."""
    return batch.x.shape[0] * batch.x.shape[1] if batch.mask is None else (batch.mask != 0).sum()
