"""Passes over held-out rows."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator

import pytorch_lightning as pl
import torch

from warmstart.core.batch import Batch
from warmstart.data.datamodule import TaskDataModule
from warmstart.training.modules import FinetuneModule
from warmstart.training.trainer import test


@contextlib.contextmanager
def aside(module: pl.LightningModule) -> Iterator[None]:
    """In evaluation mode, under the Trainer's precision, without gradients, and with the same random numbers each time.

    Not in inference mode: what a backbone keeps from a call, such as a table of positions, must still serve training.
    """
    device, modes = module.device, {part: part.training for part in module.modules()}
    module.eval()
    precision = module.trainer.precision_plugin.val_step_context()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), precision:
        torch.manual_seed(0)
        yield
    for part, mode in modes.items():
        part.training = mode


def converted(module: pl.LightningModule, batch: Batch) -> Batch:
    """A batch of a loader as the Trainer hands it to the module: in its precision, on its device."""
    return module.trainer.precision_plugin.convert_input(batch).to(module.device)


def validation_batches(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[tuple[int, Batch]]:
    """The batches of a validation, with their numbers: as many as `trainer.limit_val_batches` leaves."""
    loader, limit = trainer.datamodule.val_dataloader(), trainer.limit_val_batches
    count = limit if isinstance(limit, int) else int(len(loader) * limit)
    for index, batch in enumerate(itertools.islice(loader, count)):
        yield index, converted(module, batch)


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
