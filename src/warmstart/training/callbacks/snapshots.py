"""Copies of a backbone on the way through its pretraining, for asking how long a pretraining is long enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from warmstart.core.errors import UserError
from warmstart.training.evaluation import validate_inside

SNAPSHOTS = "snapshots"


def geometric_steps(count: int, total: int) -> list[int]:
    """`count` different steps, each about as many times the one before, the last of them `total`.

    Raises:
        UserError: there are fewer steps than that.
    """
    if count > total:
        raise UserError(f"snapshots={count}: the pretraining has only {total} steps")
    steps: list[int] = []
    for number in range(1, count + 1):
        steps.append(max(round(total ** (number / count)), steps[-1] + 1 if steps else 1))
    return steps


class Snapshots(pl.Callback):
    """Saves the backbone at geometric steps, and measures the validation loss there.

    Args:
        folder: of the run; they become snapshots/1, snapshots/2, ...
        count: how many.
        save: writes a model's folder.
        note: records what is known of each: number, step, val/loss.
    """

    def __init__(
        self, folder: Path, count: int, save: Callable[[Path], None], note: Callable[[list[dict[str, Any]]], None]
    ):
        self.folder, self.count, self.save, self.note = folder / SNAPSHOTS, count, save, note
        self.steps: list[int] = []
        self.taken: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the steps."""
        self.steps = geometric_steps(self.count, int(trainer.estimated_stepping_batches))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save when a step is one of them."""
        step = trainer.global_step
        if step not in self.steps or any(one["step"] == step for one in self.taken):
            return
        number = self.steps.index(step) + 1
        self.save(self.folder / str(number))
        self.taken.append({"number": number, "step": step, "val/loss": validate_inside(pl_module, trainer)["loss"]})
        self.note(self.taken)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"taken": self.taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Those saved so far."""
        self.taken = state_dict["taken"]
