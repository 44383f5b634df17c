"""Atomically written checkpoints with a SHA-256 checksum, which contain only tensors and plain values."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.distributed.processes import barrier, rank
from warmstart.run.files import replacing, writing

AVERAGE = "val/average_"  # prefix of the metrics of averaged weights
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
MARK = b"\nsha256 "  # precedes the digest, after the archive of torch.save; torch.load ignores both
TRAILER = len(MARK) + 64
CHUNK = 1 << 20
NONE = -1  # step of the best weights before the first validation
STATE = ("raw", "metrics", "best_step", "saved_step")  # state of BestAndLast in a checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, syncs and renames; loads with SHA-256 verification and weights_only=True."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint atomically; the old last.ckpt becomes previous.ckpt after the new one is synced.

        Raises:
            WriteError: the disk is full, read-only or broken; the old file is unchanged.
        """
        path = Path(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, previous_of(path)) as temporary, open(temporary, "wb") as stream:
            hashed = HashingStream(stream)
            torch.save(checkpoint, hashed)
            stream.write(MARK + hashed.sha256.hexdigest().encode())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Load a checkpoint without executing code."""
        return read_checkpoint(Path(path))


class HashingStream:
    """A binary stream that computes the SHA-256 of the written bytes."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.sha256 = stream, hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write and hash bytes."""
        self.sha256.update(data)
        return self.stream.write(data)

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def previous_of(path: Path) -> Path | None:
    """Return the path to which an old checkpoint at this path is moved; None if it is replaced."""
    return path.with_name(PREVIOUS) if path.name == LAST else None


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Return the tensors and plain values of a checkpoint.

    Args:
        path: of the file.
        mmap: read tensors only when they are accessed.

    Raises:
        UserError: the file is damaged: its SHA-256 is missing or differs.
    """
    try:
        left, sha256 = path.stat().st_size - TRAILER, hashlib.sha256()
        with open(path, "rb") as stream:
            while left > 0 and (chunk := stream.read(min(CHUNK, left))):
                sha256.update(chunk)
                left -= len(chunk)
            recorded = stream.read()
        if recorded != MARK + sha256.hexdigest().encode():
            raise UserError(f"{path} is damaged: its SHA-256 is not the recorded one")
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def find_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return step, best step and log of the newest checkpoint that can be resumed; None if there are no files.

    That checkpoint becomes last.ckpt. The best weights so far must exist, except before the first validation: in
    best.ckpt, or in the checkpoint itself, which then becomes best.ckpt. previous.ckpt is read only if another one
    is missing or damaged. Damaged files are removed, each with a warning.

    Raises:
        UserError: all checkpoints are damaged.
    """
    last, best, previous = (folder / name for name in (LAST, BEST, PREVIOUS))
    intact, damaged = {}, {}
    for path in (last, best, previous):
        if not path.exists() or (path == previous and last in intact and best in intact):
            continue
        try:
            intact[path] = read_summary(path)
        except UserError as error:
            damaged[path] = error
    if not intact and not damaged:
        return None
    usable = [path for path in intact if best in intact or needs_no_best(intact[path])]
    if not usable:
        names = ", ".join(path.name for path in (last, previous, best) if path in damaged) or f"{BEST} (missing)"
        others = ", and no other checkpoint has the best weights" if intact else ""
        raise UserError(f"{folder}: damaged: {names}{others}. Remove this folder and start the run again")
    chosen = max(usable, key=lambda path: intact[path]["global_step"])
    for path, error in damaged.items():
        screen.say(f"{error}; resuming from {chosen.name}, step {intact[chosen]['global_step']}", style="yellow")
        path.unlink()
    if best not in intact and has_best_weights(intact[chosen]):
        copy(chosen, best)
    if chosen != last:
        copy(chosen, last)
    return intact[chosen]


def read_summary(path: Path) -> dict[str, Any]:
    """Return the step of a checkpoint, that of the best weights, whether it was validated, and the state of the logs.

    Raises:
        UserError: as `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, mmap=True)
    best_step = checkpoint["callbacks"][BestAndLast.__qualname__]["best_step"]
    names = {"global_step": checkpoint["global_step"], "best_step": best_step, "log": checkpoint["log"]}
    return {**names, "is_validated": checkpoint.get("is_validated", True)}


def has_best_weights(summary: dict[str, Any]) -> bool:
    """Return whether the validation before a checkpoint was the best so far."""
    return summary["is_validated"] and summary["best_step"] == summary["global_step"]


def needs_no_best(summary: dict[str, Any]) -> bool:
    """Return whether a run can resume from a checkpoint without best.ckpt."""
    return has_best_weights(summary) or summary["best_step"] == NONE


def copy(path: Path, target: Path) -> None:
    """Copy a checkpoint with its SHA-256; an old last.ckpt becomes previous.ckpt, unless that is the source."""
    with replacing(target, None if path.name == PREVIOUS else previous_of(target)) as temporary:
        shutil.copyfile(path, temporary)


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Return whether a metric is better than the best so far, by mode min or max; equal values are not."""
    return best is None or (value < best if mode == "min" else value > best)


def better_metrics(metrics: Mapping[str, Any], monitor: tuple[str, str]) -> tuple[dict[str, float], bool]:
    """Return the val/ metrics of the weights or of their average, whichever is better, and whether of the average."""
    name, mode = monitor
    own = {key: float(value) for key, value in metrics.items() if key.startswith("val/")}
    averaged = {f"val/{key.removeprefix(AVERAGE)}": v for key, v in own.items() if key.startswith(AVERAGE)}
    is_average = bool(averaged) and is_better(averaged[name], own[name], mode)
    return {**own, **averaged} if is_average else own, is_average


class BestAndLast(Checkpoint):
    """Saves last.ckpt after every validation and at signals, the one before as previous.ckpt, and best.ckpt.

    If an average of the weights is evaluated too, the better of both counts; `best` are its metrics, `raw` all metrics
    of that validation, `metrics` all metrics logged until the last checkpoint, and `saved_step` is the step of the last
    validation.

    Args:
        folder: checkpoints folder of the run.
        monitor: the metric's name, and min or max.
    """

    def __init__(self, folder: Path, monitor: tuple[str, str]):
        self.folder = folder
        self.monitor = monitor
        self.raw: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self.best_step = NONE
        self.saved_step = NONE
        self.is_validated = True

    @property
    def best(self) -> dict[str, float]:
        """The val/ metrics of the best validation so far."""
        return better_metrics(self.raw, self.monitor)[0] if self.raw else {}

    @property
    def is_average(self) -> bool:
        """Whether the best metrics are those of the average."""
        return better_metrics(self.raw, self.monitor)[1]

    def best_weights(self) -> dict[str, Tensor]:
        """Return the best state of the module, raw or averaged, from best.ckpt.

        Raises:
            UserError: the file is damaged, or is not of the best step.
        """
        path = self.folder / BEST
        remedy = "resume the run: it continues from the last checkpoint that has the best weights"
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            raise UserError(f"{error}; {remedy}") from error
        if checkpoint["global_step"] != self.best_step:
            path.unlink()
            raise UserError(f"{path} is of step {checkpoint['global_step']} instead of {self.best_step}; {remedy}")
        return checkpoint["average"]["weights"] if self.is_average else checkpoint["state_dict"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a checkpoint, and keep a copy if it is the best so far."""
        name, mode = self.monitor
        better = is_better(better_metrics(trainer.callback_metrics, self.monitor)[0][name], self.best.get(name), mode)
        if better:
            self.raw = {key: float(v) for key, v in trainer.callback_metrics.items() if key.startswith("val/")}
            self.best_step = trainer.global_step
        self.metrics |= {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.saved_step = trainer.global_step
        last, best = self.folder / LAST, self.folder / BEST
        trainer.save_checkpoint(best if better else last, weights_only=False)  # with optimizer and loops
        if better and rank() == 0:
            copy(best, last)
        barrier()

    def save(self, trainer: pl.Trainer) -> None:
        """Save last.ckpt between two validations, or before the end of one."""
        self.metrics |= {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.is_validated = False
        try:
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)
        finally:
            self.is_validated = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of the logs to the checkpoint, and whether it is written after a validation."""
        checkpoint["is_validated"] = self.is_validated
        checkpoint["log"] = trainer.logger.state(trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        for name in STATE:
            setattr(self, name, state_dict[name])
