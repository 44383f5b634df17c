"""Entries of a run's record, and its row in TensorBoard's hparams table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.protocols import Objective
from warmstart.data.datamodule import MemoryDataModule
from warmstart.data.loader import batches
from warmstart.run.folder import RunFolder
from warmstart.training.checkpoint import BestAndLast
from warmstart.training.components import build_loss, short_name, sources_of
from warmstart.training.logger import RunLogger


def conclude(
    run: RunFolder,
    config: DictConfig,
    length: DictConfig,
    logger: RunLogger,
    metrics: dict[str, float],
    last: dict[str, float],
    best: dict[str, float],
    step: int,
) -> None:
    """Record the metrics of a run, and write its hparams row, with the epochs and steps in `length`.

    Args:
        length: result of `with_min_steps`.

    Raises:
        UserError: a metric is not finite.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(f"diverged: {name} is {value}; try a lower optimizer.lr")
    run.note(metrics=metrics)
    swept = (run.record.get("sweep") or {}).get("values", {})
    limits = {name: length[name] for name in ("max_epochs", "max_steps")}
    known = settings(config) | limits | ({"strategy": "auto"} if "auto" in run.record else {})
    own = {key: value for key, value in swept.items() if key.rpartition(".")[2] not in known}
    results = {f"best/{name}": value for name, value in best.items() if name.startswith("val/")}
    results |= {f"last/{name}": value for name, value in last.items() if name.startswith("val/")}
    results |= {f"best/{name}": value for name, value in metrics.items() if name.startswith(("test/", "test_"))}
    logger.conclude({**known, **own}, results, step)


def settings(config: DictConfig) -> dict[str, Any]:
    """Return the settings that sweeps usually vary, under the same keys in every run."""
    loss = build_loss(config)
    return {
        "experiment": config.experiment,
        "data": "+".join(sources_of(config.data)),
        "backbone": short_name(config.backbone),
        "objective": short_name(config.objective),
        "loss": getattr(loss, "func", loss).__name__,
        "optimizer": config.optimizer._target_.split(".")[-1],
        "average": short_name(config.average) if config.get("average") is not None else "none",
        "strategy": short_name(config.strategy) if "strategy" in config else "none",
        "init": str(config.get("init", "none")),
        "lr": config.optimizer.lr,
        "weight_decay": config.optimizer.get("weight_decay", 0.0),
        "batch_size": config.data.batch_size,
        "labels_per_class": config.data.get("labels_per_class") or "all",
        "label_fraction": config.data.get("label_fraction") or 1.0,
        "seed": config.seed,
    }


def runs_folder(config: DictConfig) -> Path:
    """Return the parent folder of runs of this config, by stage and experiment."""
    return Path(config.output_dir) / config.stage / config.experiment


def note_data(run: RunFolder, config: DictConfig, data: MemoryDataModule) -> None:
    """Record the name, fingerprint and sizes of the data, and the format of its inputs.

    Raises:
        UserError: the run is resumed and its data has changed.
    """
    check_data(run, data)
    state = data.preprocessor.state()
    separator = state.get("dialect", {}).get("separator")
    inputs = {"kind": state["kind"], "columns": data.preprocessor.names, "separator": separator}
    name = "+".join(sources_of(config.data))
    run.update(data={"name": name, "fingerprint": data.fingerprint, "rows": data.rows, "inputs": inputs})


def note_scoring(run: RunFolder, objective: Objective) -> None:
    """Record the settings of the objective's metrics, if there are any."""
    if objective.scoring:
        run.note(scoring=dict(objective.scoring))


def check_data(run: RunFolder, data: MemoryDataModule) -> None:
    """Raise an error if the data differs from that of the run; its splits may then differ as well."""
    before = run.record["data"]
    if before is not None and before["fingerprint"] != data.fingerprint:
        raise UserError(f"the data of {run.path} has changed since that run (another fingerprint): start a new run")


def note_average(run: RunFolder, best: BestAndLast, count: int) -> None:
    """Print and record whether the average of `count` steps or the raw weights were better on validation."""
    if not count:
        screen.say("the run ended before the first step of its average", style="yellow")
    better = "average" if best.is_average else "raw"
    run.note(average={"saved": better, "steps": count, "best_step": best.best_step, "raw": best.raw})
    screen.say(f"saved: the {better} weights, by validation")


def examples(count: int, per_epoch: float, data: MemoryDataModule) -> int:
    """Return the number of labelled rows in `count` batches: complete epochs, and the batches of an incomplete one.

    If blocks have several rows, it is their mean number.
    """
    if not math.isfinite(per_epoch):
        return 0
    per_epoch = max(1, int(per_epoch))
    rows, blocks = data.rows["train"], len(data.train_loader.x)
    epochs, rest = divmod(count, per_epoch)
    each = min(blocks, per_epoch * data.batch_size) if per_epoch < batches(blocks, data.batch_size) else blocks
    seen = epochs * each + min(rest * data.batch_size, blocks)
    return seen if rows == blocks else round(seen * rows / blocks)


def show(run: RunFolder, title: str) -> None:
    """Print a finished run's metrics, costs if known, and folder."""
    record = run.record
    cost = record["cost"] or {}
    rows = [(name, screen.number(value)) for name, value in sorted(record["metrics"].items())]
    if cost:
        rows += [("seconds", f"{cost['seconds']:.1f}"), ("steps", str(cost["steps"]))]
    if "teacher_seconds" in cost:
        rows += [("of these, for outputs of the teacher", f"{cost['teacher_seconds']:.1f}")]
    costs = ("trained_parameters", "bytes_per_task")
    rows += [(name.replace("_", " "), f"{cost[name]:,}") for name in costs if name in cost]
    screen.table(title, ("metric", "value"), rows)
    screen.say(f"run folder: {run.path}")
