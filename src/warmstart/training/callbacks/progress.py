"""Progress of a training: a bar in a terminal, otherwise a line per epoch."""

from __future__ import annotations

import math
import time
from typing import Any

import pytorch_lightning as pl
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from warmstart.core import screen

REFRESH_SECONDS = 0.2


class ProgressLines(pl.Callback):
    """Displays the loss and the steps per second."""

    def __init__(self, title: str):
        self.title = title
        self.bar: Progress | None = None
        self.shown = 0.0
        self.validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar if the output is a terminal."""
        self.started, self.first_step = time.monotonic(), trainer.global_step
        console = screen.console()
        if console.is_terminal and not screen.is_quiet():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console, transient=True)
            self.bar.start()
            steps = trainer.estimated_stepping_batches
            total = int(steps) if math.isfinite(steps) else None
            self.task = self.bar.add_task(self.title, total=total, completed=trainer.global_step, state="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar a few times per second."""
        if self.bar is None or time.monotonic() - self.shown < REFRESH_SECONDS:
            return
        self.shown = time.monotonic()
        state = f"loss {screen.number(float(pl_module.step_loss))}  {self._rate(trainer)} steps/s"
        self.bar.update(self.task, completed=trainer.global_step, state=state)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark that there are new metrics to print at the end of the epoch."""
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line if there is no bar and there are new validation metrics."""
        if self.bar is not None or screen.is_quiet() or not self.validated:
            return
        self.validated = False
        shown = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown["train/loss"] = pl_module.train_loss.compute()
        values = "  ".join(f"{name} {screen.number(value)}" for name, value in sorted(shown.items()))
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        screen.say(f"epoch {trainer.current_epoch + 1}{epochs}  {values}  {self._rate(trainer)} steps/s")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar before the error is printed."""
        self._close()

    def _rate(self, trainer: pl.Trainer) -> str:
        rate = (trainer.global_step - self.first_step) / max(1e-9, time.monotonic() - self.started)
        return f"{rate:.0f}" if rate >= 10 else screen.number(rate, 2)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
