"""An average of the weights over the steps of a run, judged beside them at every validation."""

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
    """Which steps join an average, and how."""

    def takes(self, step: int, total: float) -> bool:
        """Whether the weights after this step, counted from 1, are taken; `total` steps may be infinite."""

    def update(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Take `current` into `averaged`, which holds `count` () weights, in place."""


def check_average(average: Average, total: float) -> None:
    """Refuse an average that none of `total` steps, which may be infinite, would join."""
    steps = itertools.count(1) if math.isinf(total) else range(1, int(total) + 1)
    if not any(average.takes(step, total) for step in steps):
        raise UserError(
            f"the average would begin beyond the end of the run's {total:.0f} steps: "
            "train longer, or set average.start or average.every lower"
        )


class Averaging(pl.Callback):
    """Keeps the average in checkpoints, and logs val/average_<metric> once it has begun.

    Parameters are averaged; buffers are those of the last step that was taken, but for the statistics of batch norms
    that train, which are recomputed before each validation.

    Args:
        average: which steps, and how.
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
        """How many steps are in the average."""
        return int(self.model.n_averaged) if self.model is not None else 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before a checkpoint is loaded: make room for the average."""
        if self.model is None:
            self.raw = nn.ModuleDict({name: getattr(pl_module, name) for name in ("backbone", "objective")})
            device = trainer.strategy.root_device
            self.model = AveragedModel(self.raw, device, multi_avg_fn=self.average.update).eval()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the length of the run, and refuse an average that no step would join."""
        self.total = float(trainer.estimated_stepping_batches)
        check_average(self.average, self.total)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Take the weights after each optimizer step that the average wants."""
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            if self.average.takes(self.step, self.total):
                self.model.update_parameters(self.raw)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the average on the batches on which the weights themselves are measured next."""
        if not self.count:
            return
        norms = moving_norms(pl_module)
        with self.in_place(pl_module):
            recompute_norms(pl_module, trainer, norms, trainer.datamodule)
            self.measured = validate_inside(pl_module, trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what was measured, with the metrics of the weights themselves."""
        pl_module.log_dict({f"{AVERAGE}{name}": value for name, value in self.measured.items()})

    @contextlib.contextmanager
    def in_place(self, module: pl.LightningModule) -> Iterator[None]:
        """Inside, the module has the averaged parts instead of its own."""
        module.backbone, module.objective = self.model.module["backbone"], self.model.module["objective"]
        try:
            yield
        finally:
            module.backbone, module.objective = self.raw["backbone"], self.raw["objective"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the averaged weights under the names that the module gives its own."""
        checkpoint["average"] = {"weights": self.model.module.state_dict(), "count": self.count, "step": self.step}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on averaging."""
        saved = checkpoint["average"]
        self.model.module.load_state_dict(saved["weights"])
        self.model.n_averaged.fill_(saved["count"])
        self.step = saved["step"]


def moving_norms(module: pl.LightningModule) -> set[str]:
    """Names of the batch norms whose statistics a training step would move: none of a frozen part."""
    was_training = module.training
    module.train()
    names = {name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.training}
    module.train(was_training)
    return names


class Pass(nn.Module):
    """What `update_bn` needs to see of a model: the norms that may move, and a way to run it."""

    def __init__(self, norms: list[nn.Module], run: Callable[[Batch], Any]):
        super().__init__()
        self.norms, self.run = nn.ModuleList(norms), run

    def forward(self, batch: Batch) -> None:
        """Run the model on a raw batch, for what the norms see of it."""
        self.run(batch)


def recompute_norms(module: pl.LightningModule, trainer: pl.Trainer, names: Collection[str], data: Any) -> None:
    """Replace the statistics of these norms by their means over one pass of the training rows (Izmailov et al. 2018).

    Rows are augmented as in training, by the same random numbers every time; all else is as in evaluation.

    Args:
        module: with `backbone`, `objective` and `views`.
        trainer: whose precision is used.
        names: of its batch norms.
        data: a data module, whose own place in its training rows stays where it is.
    """
    norms = [part for name, part in module.named_modules() if name in names]
    if not norms:
        return
    loader = copy.copy(data.train_loader)
    loader.load_state_dict({"epoch": -1, "position": 0})
    with evaluating(module, trainer=trainer):
        run = Pass(norms, lambda batch: module.objective.step(module.backbone, module.views(batch)))
        update_bn(loader, run.eval(), module.device)
