"""Checkpoints that are never half written, and hold nothing but tensors and plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from warmstart.run.files import write_atomically

AVERAGE = "val/average_"  # what an average of the weights is measured as, beside val/ for the weights themselves


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


def judged(metrics: Mapping[str, Any], monitor: tuple[str, str]) -> tuple[dict[str, float], bool]:
    """The val/ metrics of the weights or, where it is better, of their average; and whether it is that."""
    name, mode = monitor
    own = {key: float(value) for key, value in metrics.items() if key.startswith("val/")}
    averaged = {f"val/{key.removeprefix(AVERAGE)}": v for key, v in own.items() if key.startswith(AVERAGE)}
    is_average = bool(averaged) and is_better(averaged[name], own[name], mode)
    return {**own, **averaged} if is_average else own, is_average


class BestAndLast(Checkpoint):
    """last.ckpt after every validation, best.ckpt when the monitored metric is the best so far.

    Where an average of the weights is measured too, the better of the two counts; `best` has its metrics, and
    `raw` all that were measured then.

    Args:
        folder: the run's checkpoints folder.
        monitor: the metric's name, and min or max.
    """

    def __init__(self, folder: Path, monitor: tuple[str, str]):
        self.folder = folder
        self.monitor = monitor
        self.raw: dict[str, float] = {}
        self.best_step = -1
        self.saved_step = -1

    @property
    def best(self) -> dict[str, float]:
        """The val/ metrics at the best validation so far."""
        return judged(self.raw, self.monitor)[0] if self.raw else {}

    @property
    def is_average(self) -> bool:
        """Whether these are of the average."""
        return judged(self.raw, self.monitor)[1]

    def best_weights(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """The state of the module, raw or averaged, that was best, from the best checkpoint."""
        return checkpoint["average"]["weights"] if self.is_average else checkpoint["state_dict"]

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
        name, mode = self.monitor
        better = is_better(judged(trainer.callback_metrics, self.monitor)[0][name], self.best.get(name), mode)
        if better:
            self.raw = {key: float(v) for key, v in trainer.callback_metrics.items() if key.startswith("val/")}
            self.best_step = trainer.global_step
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
        return {"best": self.raw, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best so far."""
        self.raw, self.best_step = state_dict["best"], state_dict["best_step"]
