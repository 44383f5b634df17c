"""Time per training step, as the median after a warm-up, so that runs can be compared."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import Any

import pytorch_lightning as pl

WARM_UP = 10  # steps that are not timed: the first ones load kernels and allocate memory
MIN_STEPS = 10
MAX_STEPS = 1000  # the last steps, of which the median is taken


class StepTimer:
    """Keeps the seconds of the last MAX_STEPS steps after the warm-up."""

    def __init__(self) -> None:
        self.steps, self.since = 0, 0.0
        self.durations: deque[float] = deque(maxlen=MAX_STEPS)

    def start(self) -> None:
        """Start a step."""
        self.since = time.perf_counter()

    def stop(self) -> None:
        """End a step."""
        self.steps += 1
        if self.steps > WARM_UP:
            self.durations.append(time.perf_counter() - self.since)

    def cost(self, models: int = 1) -> dict[str, float]:
        """Return `step_seconds`, the median per step and model, for a record; nothing if too few steps were timed."""
        if len(self.durations) < MIN_STEPS:
            return {}
        return {"step_seconds": statistics.median(self.durations) / models}


class StepTime(pl.Callback):
    """Times optimizer steps on the CPU, without validation and waiting for data.

    Other devices run asynchronously: the time between two hooks is not that of a step, and none is measured.
    """

    def __init__(self) -> None:
        self.timer, self.step = StepTimer(), None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Start with the first batch of a step."""
        if pl_module.device.type == "cpu" and self.step != trainer.global_step:
            self.step = trainer.global_step
            self.timer.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop with the last batch of a step."""
        if self.step is not None and trainer.global_step > self.step:
            self.timer.stop()
