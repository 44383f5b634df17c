"""The metrics of a finetuned model on the test split, and apart from them those on each shifted one."""

from __future__ import annotations

import math

import pytorch_lightning as pl

from warmstart.data.module import TaskDataModule
from warmstart.module.finetune import FinetuneModule
from warmstart.trainer.build import test

TEST = "test"


def measure(trainer: pl.Trainer, module: FinetuneModule, data: TaskDataModule) -> dict[str, float]:
    """Metrics named `test/<metric>`, and `test_<shift>/<metric>` where the data has shifted test splits.

    What watches the trainer, and `module.test_scores`, see the test split alone. What is not finite on a shifted one is
    left out, since it is no failure of the training.
    """
    watchers, metrics = trainer.callbacks, {}
    try:
        for part in data.test_parts:
            module.test_part = part
            logged = test(trainer, module, data.held_out(part))
            found = {name: value for name, value in logged.items() if name.startswith(f"{part}/")}
            metrics |= {name: value for name, value in found.items() if part == TEST or math.isfinite(value)}
            trainer.callbacks = []
    finally:
        trainer.callbacks = watchers
    return metrics
