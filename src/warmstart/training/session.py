"""What pretraining and finetuning do alike around `fit`: open the run, train, keep the best, close the record."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from warmstart.core import screen
from warmstart.core.errors import Pruned, UserError
from warmstart.data.datamodule import MemoryDataModule
from warmstart.data.loader import batches
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.training.callbacks.averaging import Averaging, check_average
from warmstart.training.callbacks.curves import Curves
from warmstart.training.callbacks.patience import Patience
from warmstart.training.callbacks.progress import ProgressLines
from warmstart.training.callbacks.throughput import Throughput
from warmstart.training.checkpoint import LAST, BestAndLast, find_checkpoint
from warmstart.training.components import build, build_loss, short_name, sources_of
from warmstart.training.logger import RunLogger
from warmstart.training.memory import forget_peak_memory, peak_memory_mb
from warmstart.training.trainer import build_trainer, check_interval, fit, measured, optimizer_steps, validate


def runs_folder(config: DictConfig) -> Path:
    """Where a run of this config belongs: by stage and experiment."""
    return Path(config.output_dir) / config.stage / config.experiment


def check_length(config: DictConfig, batches: int) -> None:
    """Refuse a validation that no epoch of so many batches reaches, and an average that no step would join."""
    check_interval(config.trainer, batches)
    average = build(config.average) if config.get("average") is not None else None
    if average is not None:
        check_average(average, optimizer_steps(config.trainer, batches))


@contextlib.contextmanager
def training(
    run: RunFolder, config: DictConfig, module: pl.LightningModule, data: MemoryDataModule, callbacks: list[pl.Callback]
) -> Iterator[tuple[pl.Trainer, dict[str, float]]]:
    """Fit inside the run's record, hand over with the best weights loaded, then write metrics, cost and hparams.

    Yields the trainer and a dict to which the caller may add metrics.
    """
    forget_peak_memory()
    started, earlier = time.monotonic(), run.record.get("cost") or {}
    every = max(1, int(config.trainer.log_every_n_steps))
    with run.recording(), contextlib.ExitStack() as opened:
        screen.say(cores.describe())
        checkpoints = run.path / "checkpoints"
        state = find_checkpoint(checkpoints)
        logger = opened.enter_context(contextlib.closing(RunLogger(run.path, state and state["log"])))
        best = BestAndLast(checkpoints, module.monitor)
        watchers = [best, Curves(every), Throughput(every), *callbacks]
        watchers.append(ProgressLines(f"{config.stage} {config.experiment}"))
        if config.get("patience") is not None:
            watchers.append(Patience(module.monitor, config.patience, config.trainer.min_steps))
        average = build(config.average) if config.get("average") is not None else None
        averaging = None if average is None else Averaging(average)
        if averaging is not None:
            watchers.insert(0, averaging)
        trainer = build_trainer(config.trainer, run.path, logger, watchers)
        try:
            if state is None:
                logger.log_text("config", OmegaConf.to_yaml(config, resolve=True))
            fit(trainer, module, data, state and checkpoints / LAST)
            best.metrics |= measured(trainer)
            if best.saved_step != trainer.global_step:
                best.metrics |= validate(trainer, module, data)
            final = dict(best.metrics)
            module.load_state_dict(best.best_weights())
            if averaging is not None:
                note_average(run, best, averaging.count)
            metrics = {**final, **best.best}
            yield trainer, metrics
            conclude(run, config, logger, metrics, final, best.best, trainer.global_step)
        except Pruned:
            latest = {name: value for name, value in measured(trainer).items() if name.startswith("val/")}
            run.note(metrics={**latest, **best.best})
            raise
        finally:
            cost = {
                "seconds": earlier.get("seconds", 0.0) + time.monotonic() - started,
                "steps": trainer.global_step,
                "examples": examples(trainer.fit_loop.total_batch_idx + 1, trainer.num_training_batches, data),
                "peak_memory_mb": max(peak_memory_mb(), earlier.get("peak_memory_mb") or 0),
            }
            run.note(cost={**(run.record["cost"] or {}), **cost})


def conclude(
    run: RunFolder,
    config: DictConfig,
    logger: RunLogger,
    metrics: dict[str, float],
    last: dict[str, float],
    best: dict[str, float],
    step: int,
) -> None:
    """Note a run's metrics in its record, and write its hparams row.

    Raises:
        UserError: a metric is not finite.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(f"diverged: {name} is {value}; try a lower optimizer.lr")
    run.note(metrics=metrics)
    swept = (run.record.get("sweep") or {}).get("values", {})
    known = settings(config) | ({"strategy": "auto"} if "auto" in run.record else {})
    own = {key: value for key, value in swept.items() if key.rpartition(".")[2] not in known}
    logger.conclude({**known, **own}, _results(metrics, last, best), step)


def note_average(run: RunFolder, best: BestAndLast, count: int) -> None:
    """Say and record whether the average, of `count` steps, or the weights themselves were better on validation."""
    if not count:
        screen.say("the run ended before its average began", style="yellow")
    better = "average" if best.is_average else "raw"
    run.note(average={"saved": better, "steps": count, "best_step": best.best_step, "raw": best.raw})
    screen.say(f"saved: the {better} weights, by validation")


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


def settings(config: DictConfig) -> dict[str, Any]:
    """What sweeps mostly vary, under the same keys in every run."""
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
        "max_epochs": config.trainer.max_epochs,
        "max_steps": config.trainer.max_steps,
        "labels_per_class": config.data.get("labels_per_class") or "all",
        "label_fraction": config.data.get("label_fraction") or 1.0,
        "seed": config.seed,
    }


def examples(count: int, per_epoch: float, data: MemoryDataModule) -> int:
    """Training rows seen in so many batches: whole epochs, and the batches of one that was cut short."""
    if not math.isfinite(per_epoch):
        return 0
    per_epoch = max(1, int(per_epoch))
    rows = data.rows["train"]
    epochs, rest = divmod(count, per_epoch)
    each = min(rows, per_epoch * data.batch_size) if per_epoch < batches(rows, data.batch_size) else rows
    return epochs * each + min(rest * data.batch_size, rows)


def _results(metrics: dict[str, float], last: dict[str, float], best: dict[str, float]) -> dict[str, float]:
    results = {f"best/{name}": value for name, value in best.items() if name.startswith("val/")}
    results |= {f"last/{name}": value for name, value in last.items() if name.startswith("val/")}
    return results | {f"best/{name}": value for name, value in metrics.items() if name.startswith(("test/", "test_"))}


def show(run: RunFolder) -> None:
    """The run's result table and its folder."""
    record = run.record
    rows = [(name, screen.number(value)) for name, value in sorted(record["metrics"].items())]
    rows += [("seconds", f"{record['cost']['seconds']:.1f}"), ("steps", str(record["cost"]["steps"]))]
    learned = ("trained_parameters", "bytes_per_task")
    rows += [(name.replace("_", " "), f"{record['cost'][name]:,}") for name in learned if name in record["cost"]]
    screen.table(f"{record['stage']} {record['experiment']}", ("metric", "value"), rows)
    screen.say(f"run folder: {run.path}")
