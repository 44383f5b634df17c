"""The LightningModules of pretraining and finetuning, and what they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MetricCollection

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Objective, Strategy
from warmstart.core.spec import Spec
from warmstart.data.transforms.augment import Augment
from warmstart.training.mean import RunningMean
from warmstart.training.optimization import Accumulation, assign, at, configure, freeze


class LeanModule(pl.LightningModule):
    """Lightning notes the running hook's name in `_current_fx_name` some 46 times a step.

    Through `nn.Module.__setattr__` that is a tenth of a short step's overhead; see docs/lab.md.

    `step_loss` is the loss of the last optimizer step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.train_loss, self.accumulation = RunningMean(), Accumulation()
        self.step_loss: Tensor | float = float("nan")
        self.unfinished: dict[str, Any] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_current_fx_name", "step_loss"):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LeanModule:
        """Have inputs converted to the type of the parameters."""
        super()._apply(fn, recurse)
        self.augment.dtype = next((value.dtype for value in self.parameters() if value.is_floating_point()), None)
        return self

    def counted(self, output: StepOutput) -> Tensor:
        """Add a training batch to train/loss and to the optimizer step; return the loss to be differentiated."""
        self.train_loss.update(output)
        if self.trainer.accumulate_grad_batches == 1:
            self.step_loss = output.loss.detach()
            return output.loss
        return self.accumulation.add(output)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Complete the gradients of a step of several batches, before they are clipped."""
        batches = self.trainer.accumulate_grad_batches
        if batches > 1:
            parameters = (value for group in optimizer.param_groups for value in group["params"])
            self.step_loss = self.accumulation.close(parameters, batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loss added up so far in this epoch, and the gradients of an optimizer step that is not complete."""
        checkpoint["train_loss"] = self.train_loss.state_dict()
        unfinished = self.accumulation.state_dict(self)
        if unfinished:
            checkpoint["accumulation"] = unfinished

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume both."""
        self.train_loss.load_state_dict(checkpoint["train_loss"])
        self.unfinished = checkpoint.get("accumulation", {})

    def on_train_start(self) -> None:
        """Put gradients of an incomplete optimizer step back, once the parameters are on their device."""
        if self.unfinished:
            self.accumulation.load_state_dict(self.unfinished, self)
            self.unfinished = {}

    def on_train_epoch_end(self) -> None:
        """Log train/loss."""
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed the generators that noise, masks, augmentation and dropout draw from.

    `torch.manual_seed` would do the same, but formats a stack trace per absent kind of accelerator: 2 ms a step.
    """
    torch.default_generator.manual_seed(seed + step)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed + step)


class PretrainModule(LeanModule):
    """All randomness of a step (noise, masks, augmentation, dropout) is a function of `seed` and the step's number.

    A resumed run therefore draws what an undisturbed one would.
    """

    monitor: ClassVar = ("val/loss", "min")
    metrics: ClassVar = MappingProxyType({})

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        optimizer: Callable[..., Any],
        scheduler: Callable[..., float],
        augment: Augment,
        seed: int,
    ):
        super().__init__()
        self.backbone, self.objective = backbone, objective
        self.optimizer, self.scheduler, self.augment, self.seed = optimizer, scheduler, augment, seed
        self.scales = {name: float(parameter.requires_grad) for name, parameter in self.named_parameters()}
        self.val_loss = RunningMean()

    def views(self, batch: Batch) -> Batch:
        """The augmented copies that the objective asks for, stacked along the batch."""
        count = self.objective.views
        if count == 1:
            return self.augment.mixed(Batch(self.augment(batch.x), batch.y, batch.mask))
        mask = None if batch.mask is None else torch.cat([batch.mask] * count)
        return Batch(torch.cat([self.augment(batch.x) for _ in range(count)]), batch.y, mask)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's mean loss."""
        seed_step(self.seed, self.trainer.fit_loop.total_batch_idx, self.device)
        if not self.accumulation.count:
            self.objective.follow(self.backbone)
        return self.counted(self.objective.step(self.backbone, self.views(batch)))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same loss, with the same noise at every epoch."""
        seed_step(self.seed, batch_idx, self.device)
        if self.objective.views > 1:
            batch = self.views(batch)
        else:
            batch.x = self.augment.scale(batch.x)
        self.val_loss.update(self.objective.step(self.backbone, batch))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss, the objective's measures, and what it has to say of the loss."""
        self.log_dict({f"val/{name}": value for name, value in self.held_out().items()})

    def held_out(self) -> dict[str, float]:
        """Loss, measures and what the objective says of the loss, of the batches since the last time, by name."""
        loss = self.val_loss.compute()
        found = self.val_loss.measured() | self.objective.summary(loss, self.trainer.datamodule.spec)
        self.val_loss.reset()
        return {"loss": loss, **found}

    def configure_optimizers(self) -> dict[str, Any]:
        """What trains does so at the full rate."""
        return configure(
            self, self.scales, self.optimizer, self.scheduler, float(self.trainer.estimated_stepping_batches)
        )


class FinetuneModule(LeanModule):
    """What is frozen at a step stays in evaluation mode, so that its norm statistics and dropout do not move either.

    All randomness of a step, and what trains at it, are functions of `seed` and the step's number. Without a strategy
    it is for evaluation only. `origin` holds SHA-256 of the backbone's tensors that a parent gave, by name.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        strategy: Strategy | None,
        optimizer: Callable[..., Any],
        scheduler: Callable[..., float],
        augment: Augment,
        seed: int,
        origin: dict[str, str] | None = None,
    ):
        super().__init__()
        self.backbone, self.objective = backbone, objective
        self.origin = origin or {}
        self.optimizer, self.scheduler, self.augment, self.seed = optimizer, scheduler, augment, seed
        self.strategy = strategy
        self.scales, self.trained, self.frozen = {}, set(), []
        if strategy is not None:
            self.scales = assign(strategy.claims(backbone), [name for name, _ in self.named_parameters()])
            self.enter(0.0)
        # Whether what trains, or how fast beside the schedule, depends on the step.
        self.has_phases = any(map(callable, self.scales.values())) or bool(strategy and strategy.restarts)
        self.total_steps = math.inf
        self.monitor = objective.monitor
        self.held_out_loss = RunningMean()
        self.metrics = MetricCollection(objective.metrics(), compute_groups=False)
        self.test_part = "test"
        self.spec: Spec | None = None  # of the data to predict for
        self.test_scores: list[Tensor | None] = []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FinetuneModule:
        """Keep the metrics' sums in their own precision when a Trainer converts the model."""
        metrics = self._modules.pop("metrics", None)
        super()._apply(fn, recurse)
        if metrics is not None:
            self.metrics = metrics._apply(lambda value: value.to(fn(value).device))
        return self

    def enter(self, progress: float) -> None:
        """Freeze what the strategy freezes once a share `progress` of the run is over, and only that.

        Raises:
            UserError: nothing would train.
        """
        trained = {name for name, scale in self.scales.items() if at(scale, progress)}
        if trained == self.trained:
            return
        if not trained:
            raise UserError(f"strategy: every parameter is frozen at {progress:.0%} of the run, so nothing would train")
        self.trained = trained
        self.frozen = freeze(self, trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> FinetuneModule:
        """Training mode for what trains."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def views(self, batch: Batch) -> Batch:
        """The augmented examples, mixed with each other where asked."""
        return self.augment.mixed(Batch(self.augment(batch.x), batch.y, batch.mask))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let train what is to train at this step."""
        if self.has_phases:
            self.enter(self.trainer.global_step / self.total_steps)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's mean loss, or what the strategy makes of it."""
        seed_step(self.seed, self.trainer.fit_loop.total_batch_idx, self.device)
        return self.counted(self.strategy.step(self.objective, self.backbone, self.views(batch)))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to loss and metrics; return the outputs (B, C)."""
        batch.x = self.augment.scale(batch.x)
        output = self.objective.step(self.backbone, batch)
        self.held_out_loss.update(output)
        self.metrics.update(output.outputs, batch.y)
        return output.outputs

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to loss, metrics and, of the test split itself, `test_scores`; return the outputs (B, C)."""
        outputs = self.validation_step(batch, batch_idx)
        if self.test_part == "test":
            self.test_scores.append(self.objective.scores(outputs, batch.y))
        return outputs

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:
        """One plain record per example, with the names of `spec`."""
        batch.x = self.augment.scale(batch.x)
        return self.objective.to_records(self.objective.predict(self.backbone, batch), batch, self.spec)

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/<metric>."""
        self._log_held_out("val")

    def on_test_epoch_end(self) -> None:
        """Log loss and metrics of `test_part`: test/loss or, of a shifted split, test_<shift>/loss."""
        self._log_held_out(self.test_part)

    def configure_optimizers(self) -> dict[str, Any]:
        """Rates as the strategy says."""
        self.total_steps = float(self.trainer.estimated_stepping_batches)
        return configure(self, self.scales, self.optimizer, self.scheduler, self.total_steps, self.strategy.restarts)

    def held_out(self) -> dict[str, Any]:
        """Loss and metrics of the batches since the last time, by name."""
        values = {"loss": self.held_out_loss.compute(), **self.metrics.compute()}
        self.held_out_loss.reset()
        self.metrics.reset()
        return values

    def _log_held_out(self, part: str) -> None:
        self.log_dict({f"{part}/{name}": value for name, value in self.held_out().items()})
