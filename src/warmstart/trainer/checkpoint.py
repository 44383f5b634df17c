"""Checkpoints that are never half written, and hold nothing but tensors and plain values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from warmstart.run.folder import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, syncs, renames; reads with weights_only=True."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save so that `path` is always whole."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with open(temporary, "wb") as stream:
            torch.save(checkpoint, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Load without running code."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Whether a metric, of which min or max is wanted, is the best so far; an equal one is not."""
    return best is None or (value < best if mode == "min" else value > best)


class BestAndLast(Checkpoint):
    """last.ckpt after every validation, best.ckpt when the monitored metric is the best so far.

    Args:
        folder: the run's checkpoints folder.
        monitor: the metric's name, and min or max.
    """

    def __init__(self, folder: Path, monitor: tuple[str, str]):
        self.folder = folder
        self.name, self.mode = monitor
        self.best: dict[str, float] = {}
        self.best_step = -1
        self.saved_step = -1

    @property
    def last_path(self) -> Path:
        """Where the run can go on from."""
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        """The best weights so far."""
        return self.folder / "best.ckpt"

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and copy when it is the best so far."""
        metrics = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
        better = is_better(metrics[self.name], self.best.get(self.name), self.mode)
        if better:
            self.best, self.best_step = metrics, trainer.global_step
        self.saved_step = trainer.global_step
        # The best is written first: killed in between, the run goes on from the older last, and gets to this one again.
        path = self.best_path if better else self.last_path
        trainer.save_checkpoint(path, weights_only=False)  # with optimizer and loops
        if better:
            write_atomically(self.last_path, path.read_bytes())

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note how many rows metrics.csv had."""
        checkpoint["metrics_rows"] = trainer.logger.count

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best so far."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
