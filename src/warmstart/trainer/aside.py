"""Evaluation in the middle of training, under the run's own precision, that changes nothing of the training."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytorch_lightning as pl
import torch

from warmstart.contracts import Batch


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
