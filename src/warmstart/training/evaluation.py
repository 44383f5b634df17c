"""Passes over held-out rows: Lightning's loop outside a training, and one that a training does not notice."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import nn

from warmstart.core.batch import Batch
from warmstart.data.datamodule import TaskDataModule
from warmstart.training.modules import FinetuneModule, LeanModule
from warmstart.training.trainer import handling, measured

TEST = "test"
T = TypeVar("T")


@contextlib.contextmanager
def evaluating(*models: nn.Module, trainer: pl.Trainer | None = None) -> Iterator[None]:
    """Inside, models are in evaluation mode, without gradients, and draw the same random numbers each time.

    Modes and random numbers are as before afterwards. Not in inference mode: what a backbone keeps from a call, such as
    a table of positions, must still serve training.

    Args:
        models: what is evaluated.
        trainer: whose precision is used, if any's.
    """
    modes = {part: part.training for model in models for part in model.modules()}
    devices = {value.device for model in models for value in model.parameters() if value.is_cuda}
    precision = contextlib.nullcontext() if trainer is None else trainer.precision_plugin.val_step_context()
    try:
        for model in models:
            model.eval()
        with torch.random.fork_rng(list(devices)), torch.no_grad(), precision:
            torch.manual_seed(0)
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def converted(batch: Batch, module: pl.LightningModule, trainer: pl.Trainer) -> Batch:
    """A batch of a loader as the Trainer hands it to the module: in its precision, on its device."""
    return trainer.precision_plugin.convert_input(batch).to(module.device)


def evaluate(
    module: pl.LightningModule, trainer: pl.Trainer, loader: Iterable[Batch], step: Callable[[Batch, int], T]
) -> list[T]:
    """What `step` makes of each batch and its number; a signal comes out as KeyboardInterrupt."""
    with evaluating(module, trainer=trainer), handling():
        return [step(converted(batch, module, trainer), index) for index, batch in enumerate(loader)]


def validate_inside(module: LeanModule, trainer: pl.Trainer) -> dict[str, Any]:
    """Loss and metrics, by name, on the batches of a validation, inside a training."""

    def step(batch: Batch, index: int) -> None:
        module.validation_step(batch, index)

    loader, limit = trainer.datamodule.val_dataloader(), trainer.limit_val_batches
    count = limit if isinstance(limit, int) else int(len(loader) * limit)
    evaluate(module, trainer, itertools.islice(loader, count), step)
    return module.held_out()


def validate(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> dict[str, float]:
    """The metrics of a validation; a signal comes out as KeyboardInterrupt."""
    with handling():
        trainer.validate(module, datamodule=data, verbose=False)
    return measured(trainer)


def measure(trainer: pl.Trainer, module: FinetuneModule, data: TaskDataModule) -> dict[str, float]:
    """Metrics named `test/<metric>`, and `test_<shift>/<metric>` where the data has shifted test splits.

    What watches the trainer, and `module.test_scores`, see the test split alone. What is not finite on a shifted one is
    left out, since it is no failure of the training. A signal comes out as KeyboardInterrupt.
    """
    watchers, metrics = trainer.callbacks, {}
    try:
        for part in data.test_parts:
            module.test_part = part
            with handling():
                trainer.test(module, data.held_out(part), verbose=False)
            found = {name: value for name, value in measured(trainer).items() if name.startswith(f"{part}/")}
            metrics |= {name: value for name, value in found.items() if part == TEST or math.isfinite(value)}
            trainer.callbacks = []
    finally:
        trainer.callbacks = watchers
    return metrics
