"""Training budgets in time or tokens; the learning-rate schedule ends with the budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from warmstart.distributed.processes import of_first, world

TICKS = 10_000  # resolution of a schedule by time


def seconds(limit: float | str) -> float:
    """Return a limit in seconds, which may be given as hours:minutes:seconds."""
    if not isinstance(limit, str):
        return float(limit)
    hours, minutes, rest = limit.split(":")
    return 3600.0 * int(hours) + 60.0 * int(minutes) + float(rest)


class Stopwatch:
    """Measures seconds on the monotonic clock while it is running."""

    def __init__(self, elapsed: float = 0.0):
        self.elapsed = elapsed
        self.since: float | None = None

    @property
    def seconds(self) -> float:
        """The elapsed seconds."""
        return self.elapsed + (0.0 if self.since is None else time.monotonic() - self.since)

    def start(self) -> None:
        """Start, if it is not running."""
        self.since = time.monotonic() if self.since is None else self.since

    def stop(self) -> None:
        """Stop, and keep the elapsed seconds."""
        self.elapsed, self.since = self.seconds, None


class Budget(pl.Callback):
    """Stops a run after a training time or a number of tokens, and ends the schedule there; other limits apply as well.

    A number of tokens is converted to a number of steps with the mean tokens per batch. With a time, the progress of
    the schedule is the elapsed fraction of the time. Validation, checkpoints and other work between two batches at a
    validation are excluded, as are pauses: the elapsed time is saved in the checkpoint, and a resumed run continues
    with the remaining time.

    Args:
        max_time: seconds, or hours:minutes:seconds.
        max_tokens: positions of training batches without padding; examples, if they are not tokenized.
    """

    def __init__(self, max_time: float | str | None = None, max_tokens: float | None = None):
        self.max_time = None if max_time is None else seconds(max_time)
        self.max_tokens = max_tokens
        self.stopwatch, self.elapsed = Stopwatch(), 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Limit the steps, or make the schedule depend on the time, before optimizer and schedule are built."""
        if stage != "fit":
            return
        if self.max_tokens is not None:
            batch = trainer.datamodule.batch_tokens or trainer.datamodule.batch_size
            steps = max(1, int(self.max_tokens / (batch * trainer.accumulate_grad_batches)))
            loop = trainer.fit_loop.epoch_loop
            loop.max_steps = steps if loop.max_steps == -1 else min(steps, loop.max_steps)
        if self.max_time is not None:
            pl_module.scheduler = self.by_time(pl_module.scheduler)

    def by_time(self, scheduler: Callable[[int, float], float]) -> Callable[[int, float], float]:
        """Return the schedule at the fraction of the steps or of the time that is complete, whichever is larger."""

        def factor(step: int, total: float) -> float:
            elapsed = self.stopwatch.seconds if world() == 1 else self.elapsed
            ticks = min(TICKS, round(TICKS * elapsed / self.max_time))
            return scheduler(ticks, TICKS) if ticks / TICKS >= step / total else scheduler(step, total)

        return factor

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if a resumed run has no time left."""
        self._check(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Start the stopwatch."""
        self.stopwatch.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop if the time is over; the time of the first process counts for all."""
        self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the stopwatch until the next training batch."""
        self.stopwatch.stop()

    def state_dict(self) -> dict[str, Any]:
        """Return the elapsed time."""
        return {"seconds": self.stopwatch.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the elapsed time."""
        self.stopwatch = Stopwatch(state_dict["seconds"])

    def _check(self, trainer: pl.Trainer) -> None:
        if self.max_time is None:
            return
        self.elapsed = of_first(self.stopwatch.seconds)
        if self.elapsed >= self.max_time:
            trainer.should_stop = True
