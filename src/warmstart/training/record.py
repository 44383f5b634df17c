"""What a run's record says of its data, its weights and its cost, and how it is shown."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.datamodule import MemoryDataModule
from warmstart.data.loader import batches
from warmstart.run.folder import RunFolder
from warmstart.training.checkpoint import BestAndLast
from warmstart.training.components import sources_of


def runs_folder(config: DictConfig) -> Path:
    """Where a run of this config belongs: by stage and experiment."""
    return Path(config.output_dir) / config.stage / config.experiment


def note_data(run: RunFolder, config: DictConfig, data: MemoryDataModule) -> None:
    """Put the data's name, fingerprint and sizes, and how its inputs are written, into the record.

    Raises:
        UserError: the run is resumed and its data is no longer what it was.
    """
    check_data(run, data)
    state = data.preprocessor.state()
    separator = state.get("dialect", {}).get("separator")
    inputs = {"kind": state["kind"], "columns": data.preprocessor.names, "separator": separator}
    name = "+".join(sources_of(config.data))
    run.update(data={"name": name, "fingerprint": data.fingerprint, "rows": data.rows, "inputs": inputs})


def check_data(run: RunFolder, data: MemoryDataModule) -> None:
    """Refuse data that is not what a run was trained on: its splits, and so its test rows, may be others."""
    before = run.record["data"]
    if before is not None and before["fingerprint"] != data.fingerprint:
        raise UserError(f"the data of {run.path} has changed since that run (another fingerprint): start a new run")


def note_average(run: RunFolder, best: BestAndLast, count: int) -> None:
    """Say and record whether the average, of `count` steps, or the weights themselves were better on validation."""
    if not count:
        screen.say("the run ended before its average began", style="yellow")
    better = "average" if best.is_average else "raw"
    run.note(average={"saved": better, "steps": count, "best_step": best.best_step, "raw": best.raw})
    screen.say(f"saved: the {better} weights, by validation")


def examples(count: int, per_epoch: float, data: MemoryDataModule) -> int:
    """Training rows seen in so many batches: whole epochs, and the batches of one that was cut short."""
    if not math.isfinite(per_epoch):
        return 0
    per_epoch = max(1, int(per_epoch))
    rows = data.rows["train"]
    epochs, rest = divmod(count, per_epoch)
    each = min(rows, per_epoch * data.batch_size) if per_epoch < batches(rows, data.batch_size) else rows
    return epochs * each + min(rest * data.batch_size, rows)


def show(run: RunFolder, title: str) -> None:
    """A finished run's metrics, and what they cost where that is known, and its folder."""
    record = run.record
    cost = record["cost"] or {}
    rows = [(name, screen.number(value)) for name, value in sorted(record["metrics"].items())]
    if cost:
        rows += [("seconds", f"{cost['seconds']:.1f}"), ("steps", str(cost["steps"]))]
    learned = ("trained_parameters", "bytes_per_task")
    rows += [(name.replace("_", " "), f"{cost[name]:,}") for name in learned if name in cost]
    screen.table(title, ("metric", "value"), rows)
    screen.say(f"run folder: {run.path}")
