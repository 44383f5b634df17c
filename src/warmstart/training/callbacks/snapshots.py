"""Snapshots of a backbone during its pretraining, to measure the effect of the pretraining length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from warmstart.core.errors import UserError
from warmstart.training.evaluation import validate_inside

SNAPSHOTS = "snapshots"


def geometric_steps(count: int, total: int) -> list[int]:
    """Return `count` distinct steps in an approximately geometric sequence; the last one is `total`.

    Raises:
        UserError: there are fewer than `count` steps.
    """
    if count > total:
        raise UserError(f"snapshots={count}: the pretraining has only {total} steps")
    steps: list[int] = []
    for number in range(1, count + 1):
        steps.append(max(round(total ** (number / count)), steps[-1] + 1 if steps else 1))
    return steps


class Snapshots(pl.Callback):
    """Saves the backbone at geometrically spaced steps, with its validation loss.

    Args:
        folder: run folder; the snapshots are snapshots/1, snapshots/2, ...
        count: number of snapshots.
        save: writes the model to a folder.
        note: records the list of snapshots: number, step, val/loss.
    """

    def __init__(
        self, folder: Path, count: int, save: Callable[[Path], None], note: Callable[[list[dict[str, Any]]], None]
    ):
        self.folder, self.count, self.save, self.note = folder / SNAPSHOTS, count, save, note
        self.steps: list[int] = []
        self.taken: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the steps."""
        self.steps = geometric_steps(self.count, int(trainer.estimated_stepping_batches))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save a snapshot at each of the steps."""
        step = trainer.global_step
        if step not in self.steps or any(one["step"] == step for one in self.taken):
            return
        number = self.steps.index(step) + 1
        self.save(self.folder / str(number))
        self.taken.append({"number": number, "step": step, "val/loss": validate_inside(pl_module, trainer)["loss"]})
        self.note(self.taken)

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshots so far."""
        return {"taken": self.taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the list of snapshots."""
        self.taken = state_dict["taken"]
