"""A run's row in TensorBoard's table of hparams: what sweeps vary, beside the best and the last metrics."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig

from warmstart.core.errors import UserError
from warmstart.run.folder import RunFolder
from warmstart.training.components import build_loss, short_name, sources_of
from warmstart.training.logger import RunLogger


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
    results = {f"best/{name}": value for name, value in best.items() if name.startswith("val/")}
    results |= {f"last/{name}": value for name, value in last.items() if name.startswith("val/")}
    results |= {f"best/{name}": value for name, value in metrics.items() if name.startswith(("test/", "test_"))}
    logger.conclude({**known, **own}, results, step)


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
