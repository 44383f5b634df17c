"""Evaluation on held-out rows: Lightning's loop outside a training, and passes that do not affect a training."""

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
from warmstart.training.signals import handling
from warmstart.training.trainer import measured

TEST = "test"
T = TypeVar("T")


@contextlib.contextmanager
def evaluating(*models: nn.Module, trainer: pl.Trainer | None = None) -> Iterator[None]:
    """Set models to evaluation mode without gradients and with a fixed random seed inside the context.

    Modes and random states are restored afterwards. Inference mode is not used, since tensors that a backbone caches,
    such as rotary embeddings, must be usable in training.

    Args:
        models: models to evaluate.
        trainer: determines the precision, if given.
    """
    modes = {child: child.training for model in models for child in model.modules()}
    devices = {value.device for model in models for value in model.parameters() if value.is_cuda}
    precision = contextlib.nullcontext() if trainer is None else trainer.precision_plugin.val_step_context()
    try:
        for model in models:
            model.eval()
        with torch.random.fork_rng(list(devices)), torch.no_grad(), precision:
            torch.manual_seed(0)
            yield
    finally:
        for child, mode in modes.items():
            child.training = mode


def converted(batch: Batch, module: pl.LightningModule, trainer: pl.Trainer) -> Batch:
    """Convert a loader's batch as the Trainer does: to its precision and to the module's device."""
    return trainer.precision_plugin.convert_input(batch).to(module.device)


def evaluate(
    module: pl.LightningModule, trainer: pl.Trainer, loader: Iterable[Batch], step: Callable[[Batch, int], T]
) -> list[T]:
    """Return the results of `step` for each batch and its index; a signal raises KeyboardInterrupt."""
    with evaluating(module, trainer=trainer), handling():
        return [step(converted(batch, module, trainer), index) for index, batch in enumerate(loader)]


def validate_inside(module: LeanModule, trainer: pl.Trainer) -> dict[str, Any]:
    """Return loss and metrics by name on the validation batches, within a training."""

    def step(batch: Batch, index: int) -> None:
        module.validation_step(batch, index)

    loader, limit = trainer.datamodule.val_dataloader(), trainer.limit_val_batches
    count = limit if isinstance(limit, int) else int(len(loader) * limit)
    evaluate(module, trainer, itertools.islice(loader, count), step)
    return module.validated()


def validate(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> dict[str, float]:
    """Return the metrics of a validation; a signal raises KeyboardInterrupt."""
    with handling():
        trainer.validate(module, datamodule=data, verbose=False)
    return measured(trainer)


def measure(trainer: pl.Trainer, module: FinetuneModule, data: TaskDataModule) -> dict[str, float]:
    """Return metrics named `test/<metric>`, and `test_<shift>/<metric>` for shifted test splits.

    The callbacks of the trainer and `module.test_scores` are used for the test split only. Metrics of a shifted split
    that are not finite are omitted, since they are no failure of the training. A signal raises KeyboardInterrupt.
    """
    callbacks, metrics = trainer.callbacks, {}
    try:
        for split in data.test_parts:
            module.test_part = split
            with handling():
                trainer.test(module, data.held_out(split), verbose=False)
            found = {name: value for name, value in measured(trainer).items() if name.startswith(f"{split}/")}
            metrics |= {name: value for name, value in found.items() if split == TEST or math.isfinite(value)}
            trainer.callbacks = []
    finally:
        trainer.callbacks = callbacks
    return metrics
