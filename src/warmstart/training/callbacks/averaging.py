"""Averages of the weights over the steps of a run, evaluated at every validation."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, update_bn

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.training.checkpoint import AVERAGE
from warmstart.training.evaluation import evaluating, validate_inside


class Average(Protocol):
    """The interface of averages of the weights (conf/average)."""

    def includes(self, step: int, total: float) -> bool:
        """Return whether to include the weights after this step, counted from 1; `total` steps may be infinite."""

    def update(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Update `averaged`, the average of `count` () weights, in place with `current`."""


def check_average(average: Average, total: float) -> None:
    """Raise an error if no step of `total`, which may be infinite, would be included in the average."""
    steps = itertools.count(1) if math.isinf(total) else range(1, int(total) + 1)
    if not any(average.includes(step, total) for step in steps):
        raise UserError(
            f"the average would start after the last of the run's {total:.0f} steps: "
            "train longer, or decrease average.start or average.every"
        )


class Averaging(pl.Callback):
    """Averages the weights, saves the average in checkpoints, and logs val/average_<metric> after its first step.

    Parameters are averaged; buffers are those of the last included step, except batch-norm statistics that are not
    frozen, which are recomputed before each validation.

    Args:
        average: selects the steps and computes the average.
    """

    def __init__(self, average: Average):
        self.average = average
        self.step = 0
        self.total = math.inf
        self.measured: dict[str, Any] = {}
        self.raw: nn.Module | None = None
        self.model: AveragedModel | None = None

    @property
    def count(self) -> int:
        """The number of steps in the average."""
        return int(self.model.n_averaged) if self.model is not None else 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the averaged model, before a checkpoint is loaded."""
        if self.model is None:
            self.raw = nn.ModuleDict({name: getattr(pl_module, name) for name in ("backbone", "objective")})
            device = trainer.strategy.root_device
            self.model = AveragedModel(self.raw, device, multi_avg_fn=self.average.update).eval()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the number of steps, and check that the average includes a step."""
        self.total = float(trainer.estimated_stepping_batches)
        check_average(self.average, self.total)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Update the average after the optimizer steps that it includes."""
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            if self.average.includes(self.step, self.total):
                self.model.update_parameters(self.raw)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the average on the validation batches, before the weights themselves are evaluated."""
        if not self.count:
            return
        norms = moving_norms(pl_module)
        with self.in_place(pl_module):
            recompute_norms(pl_module, trainer, norms, trainer.datamodule)
            self.measured = validate_inside(pl_module, trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the average together with those of the weights."""
        pl_module.log_dict({f"{AVERAGE}{name}": value for name, value in self.measured.items()})

    @contextlib.contextmanager
    def in_place(self, module: pl.LightningModule) -> Iterator[None]:
        """Replace the module's backbone and objective by the averaged ones inside the context."""
        module.backbone, module.objective = self.model.module["backbone"], self.model.module["objective"]
        try:
            yield
        finally:
            module.backbone, module.objective = self.raw["backbone"], self.raw["objective"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the averaged weights under the names of the module's own weights."""
        checkpoint["average"] = {"weights": self.model.module.state_dict(), "count": self.count, "step": self.step}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average."""
        saved = checkpoint["average"]
        self.model.module.load_state_dict(saved["weights"])
        self.model.n_averaged.fill_(saved["count"])
        self.step = saved["step"]


def moving_norms(module: pl.LightningModule) -> set[str]:
    """Return the names of batch norms whose statistics change during training, which excludes frozen layers."""
    was_training = module.training
    module.train()
    names = {name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.training}
    module.train(was_training)
    return names


class Pass(nn.Module):
    """An adapter for `update_bn`: contains the batch norms to update and a function that runs the model."""

    def __init__(self, norms: list[nn.Module], run: Callable[[Batch], Any]):
        super().__init__()
        self.norms, self.run = nn.ModuleList(norms), run

    def forward(self, batch: Batch) -> None:
        """Run the model on a raw batch, which updates the statistics."""
        self.run(batch)


def recompute_norms(module: pl.LightningModule, trainer: pl.Trainer, names: Collection[str], data: Any) -> None:
    """Recompute the statistics of batch norms as means over one pass of the training rows (Izmailov et al. 2018).

    Rows are augmented as in training, with the same random numbers every time; otherwise as in evaluation.

    Args:
        module: with `backbone`, `objective` and `views`.
        trainer: determines the precision.
        names: names of the batch norms.
        data: a data module; the position of its training loader is not changed.
    """
    norms = [part for name, part in module.named_modules() if name in names]
    if not norms:
        return
    loader = copy.copy(data.train_loader)
    loader.load_state_dict({"epoch": -1, "position": 0})
    loader.is_divided = False
    with evaluating(module, trainer=trainer):
        run = Pass(norms, lambda batch: module.objective.step(module.backbone, module.views(batch)))
        update_bn(loader, run.eval(), module.device)
