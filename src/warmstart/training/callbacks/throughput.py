"""Tokens per second of a training."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.distributed.processes import total
from warmstart.training.budget import Stopwatch


class Throughput(pl.Callback):
    """Logs tokens_per_second every `every` steps for tokenized examples, without padding and validation time.

    It is not written to metrics.csv, since a rerun cannot reproduce it.
    """

    def __init__(self, every: int):
        self.every = every
        self.stopwatch = Stopwatch()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the counts."""
        self.counts = trainer.datamodule.spec.vocabulary is not None
        self._restart(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Start the stopwatch."""
        self.stopwatch.start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the stopwatch until the next training batch."""
        self.stopwatch.stop()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count tokens on the device; log every n steps."""
        if not self.counts:
            return
        self.tokens = self.tokens + valid_positions(batch)
        if trainer.global_step % self.every == 0 and trainer.global_step > self.first_step:
            rate = total(float(self.tokens)) / self.stopwatch.seconds
            trainer.logger.log_unreproducible({"tokens_per_second": rate}, trainer.global_step)
            self._restart(trainer)
            self.stopwatch.start()

    def _restart(self, trainer: pl.Trainer) -> None:
        self.stopwatch, self.first_step = Stopwatch(), trainer.global_step
        self.tokens: Tensor | int = 0


def valid_positions(batch: Batch) -> Tensor | int:
    """Return the number of positions of a batch (B, T) that are not padding."""
    return batch.x.shape[0] * batch.x.shape[1] if batch.mask is None else (batch.mask != 0).sum()
