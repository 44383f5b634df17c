"""Training for so long, or on so many tokens, with a learning-rate schedule that ends when they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

TICKS = 10_000  # how finely a schedule that follows the clock is resolved


def seconds(limit: float | str) -> float:
    """A limit given in seconds, or as hours:minutes:seconds."""
    if not isinstance(limit, str):
        return float(limit)
    hours, minutes, rest = limit.split(":")
    return 3600.0 * int(hours) + 60.0 * int(minutes) + float(rest)


class Stopwatch:
    """Seconds on the monotonic clock, while it runs."""

    def __init__(self, before: float = 0.0):
        self.before = before
        self.since: float | None = None

    @property
    def seconds(self) -> float:
        """Read it."""
        return self.before + (0.0 if self.since is None else time.monotonic() - self.since)

    def start(self) -> None:
        """Run on, or go on running."""
        self.since = time.monotonic() if self.since is None else self.since

    def stop(self) -> None:
        """Stand still."""
        self.before, self.since = self.seconds, None


class Budget(pl.Callback):
    """Ends a run by training time or by tokens, and has the schedule end there too; other limits hold as well.

    A number of tokens becomes a number of steps, from the mean tokens of a batch. Time cannot: the schedule's place is
    the share of the time that is over. Validation, checkpoints and what else comes between two batches at a validation
    do not count, nor do pauses: the time is kept in the checkpoint, so that a resumed run has what was left.

    Args:
        max_time: seconds, or hours:minutes:seconds.
        max_tokens: positions of training batches, padding left out; examples, where they are not made of tokens.
    """

    def __init__(self, max_time: float | str | None = None, max_tokens: float | None = None):
        self.max_time = None if max_time is None else seconds(max_time)
        self.max_tokens = max_tokens
        self.watch = Stopwatch()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before the optimizer and its schedule are made: limit the steps, or let the schedule look at the clock."""
        if stage != "fit":
            return
        if self.max_tokens is not None:
            batch = trainer.datamodule.batch_tokens or trainer.datamodule.batch_size
            steps = max(1, int(self.max_tokens / (batch * trainer.accumulate_grad_batches)))
            loop = trainer.fit_loop.epoch_loop
            loop.max_steps = steps if loop.max_steps == -1 else min(steps, loop.max_steps)
        if self.max_time is not None:
            pl_module.scheduler = self.paced(pl_module.scheduler)

    def paced(self, scheduler: Callable[[int, float], float]) -> Callable[[int, float], float]:
        """A schedule at the share of the steps or of the time that is over, whichever is larger."""

        def place(step: int, total: float) -> float:
            ticks = min(TICKS, round(TICKS * self.watch.seconds / self.max_time))
            return scheduler(ticks, TICKS) if ticks / TICKS >= step / total else scheduler(step, total)

        return place

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A resumed run may have no time left."""
        self._check(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Let the clock run."""
        self.watch.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop when the time is over."""
        self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the next training batch."""
        self.watch.stop()

    def state_dict(self) -> dict[str, Any]:
        """The time spent so far."""
        return {"seconds": self.watch.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what is left."""
        self.watch = Stopwatch(state_dict["seconds"])

    def _check(self, trainer: pl.Trainer) -> None:
        if self.max_time is not None and self.watch.seconds >= self.max_time:
            trainer.should_stop = True
