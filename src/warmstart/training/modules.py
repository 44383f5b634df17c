"""The LightningModules of pretraining and finetuning, and their base class."""

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

from warmstart.core.batch import Batch, Part, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Objective, Strategy
from warmstart.core.spec import Spec
from warmstart.data.transforms.augment import Augment
from warmstart.distributed.part import computing
from warmstart.distributed.processes import mean_of, rank, world
from warmstart.run.identity import derive_seed
from warmstart.training.mean import RunningMean
from warmstart.training.optimization import Accumulation, assign, at, configure, freeze


class LeanModule(pl.LightningModule):
    """Base class of the modules; `step_loss` is the loss of the last optimizer step.

    Lightning sets `_current_fx_name` about 46 times per step. `nn.Module.__setattr__` is bypassed for it, as it would
    take a tenth of the overhead of a short step; see docs/lab.md.
    """

    def __init__(self) -> None:
        super().__init__()
        self.train_loss, self.accumulation = RunningMean(), Accumulation()
        self.step_loss: Tensor | float = float("nan")
        self.unfinished: dict[str, Any] = {}
        self.is_divided = False  # whether `held_out` is about the batches of all processes

    @property
    def unlabelled_rows(self) -> int:
        """The number of unlabelled rows that the module was trained on, repetitions included."""
        return 0

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_current_fx_name", "step_loss"):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LeanModule:
        """Convert the parameters, and set the dtype of the inputs to that of the parameters."""
        super()._apply(fn, recurse)
        self.augment.dtype = next((value.dtype for value in self.parameters() if value.is_floating_point()), None)
        return self

    def accumulate(self, output: StepOutput, part: Part | None) -> Tensor:
        """Add a training batch to train/loss and to the optimizer step; return the loss for the backward pass."""
        if part is not None:
            return self.accumulate_part(output, part)
        self.train_loss.update(output)
        if self.trainer.accumulate_grad_batches == 1:
            self.step_loss = output.loss.detach()
            return output.loss
        return output.loss * self.accumulation.add(output)

    def accumulate_part(self, output: StepOutput, part: Part) -> Tensor:
        """Implement `accumulate` for a part of a batch; the processes' mean of its result is the loss of the batch."""
        weight = 0 if part.padding else output.count
        own = output.loss.detach().float()
        mean, total = mean_of(own, own.new_tensor(float(weight)))
        share = (weight * world() / total.clamp(min=1)).to(output.loss.dtype)
        self.train_loss.update(StepOutput(mean, total))
        self.train_loss.measure(output.measures, weight)
        if self.trainer.accumulate_grad_batches == 1:
            self.step_loss = mean
            return output.loss * share
        return output.loss * share * self.accumulation.add(StepOutput(mean, int(total)))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Finish the gradients of an optimizer step with several batches, before they are clipped."""
        batches = self.trainer.accumulate_grad_batches
        if batches > 1:
            parameters = (value for group in optimizer.param_groups for value in group["params"])
            self.step_loss = self.accumulation.close(parameters, batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the accumulated loss of the epoch and the gradients of an incomplete optimizer step."""
        self.reduce_measures()
        checkpoint["train_loss"] = self.train_loss.state_dict()
        unfinished = self.accumulation.state_dict(self)
        if unfinished:
            checkpoint["accumulation"] = unfinished

    def reduce_measures(self) -> None:
        """Move the measures of all processes to the first."""
        if world() > 1:
            self.train_loss.reduce_measures()
            if rank() > 0:
                self.train_loss.forget_measures()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the loss and the gradients of an incomplete optimizer step."""
        self.train_loss.load_state_dict(checkpoint["train_loss"])
        if rank() > 0:  # the sums of all processes are those of the first
            self.train_loss.forget_measures()
        self.unfinished = checkpoint.get("accumulation", {})

    def on_train_start(self) -> None:
        """Set the gradients of an incomplete optimizer step, and the learning rates of a run that is extended.

        Parameters are on their device now; the restored learning rates are those of the shorter schedule.
        """
        for setting in self.trainer.lr_scheduler_configs:
            schedule = setting.scheduler
            for group, base, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas):
                group["lr"] = base * factor(schedule.last_epoch)
        if self.unfinished:
            self.accumulation.load_state_dict(self.unfinished, self)
            self.unfinished = {}

    @property
    def divides_validation(self) -> bool:
        """Whether this process has a part of the validation batches only."""
        return world() > 1 and self.trainer.datamodule.divides_validation

    def held_out(self) -> dict[str, Any]:
        """Return loss and metrics by name for the batches since the last call."""
        raise NotImplementedError

    def validated(self) -> dict[str, Any]:
        """Return `held_out` after the validation batches."""
        self.is_divided = self.divides_validation
        try:
            return self.held_out()
        finally:
            self.is_divided = False

    def on_train_epoch_end(self) -> None:
        """Log train/loss."""
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed the generators for noise, masks, augmentation and dropout.

    `torch.manual_seed` would also format a stack trace for each missing type of accelerator: 2 ms per step.
    """
    torch.default_generator.manual_seed(seed + step)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed + step)


class PretrainModule(LeanModule):
    """Pretraining; noise, masks, augmentation and dropout are functions of `seed` and the number of the step.

    A resumed run therefore draws the same random numbers as an uninterrupted one.
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
        """Return the views that the objective requires, concatenated along the batch."""
        count = self.objective.views
        with computing(batch.part):
            x = torch.cat([self.augment(batch.x) for _ in range(count)]) if count > 1 else self.augment(batch.x)
        if count == 1:
            return self.augment.mixed(Batch(x, batch.y, batch.mask, part=batch.part))
        mask = None if batch.mask is None else torch.cat([batch.mask] * count)
        return Batch(x, batch.y, mask, part=batch.part)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of the objective."""
        seed_step(self.seed, self.trainer.fit_loop.total_batch_idx, self.device)
        if not self.accumulation.count:
            self.objective.on_step_start(self.backbone)
        views = self.views(batch)
        with computing(batch.part):
            output = self.objective.step(self.backbone, views)
        return self.accumulate(output, batch.part)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the loss of a batch, with the same noise in every epoch."""
        if self.divides_validation:
            batch_idx = batch_idx * world() + rank()
        seed_step(self.seed, batch_idx, self.device)
        if self.objective.views > 1:
            batch = self.views(batch)
        else:
            batch.x = self.augment.scale(batch.x)
        self.val_loss.update(self.objective.step(self.backbone, batch))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and the measures and summary of the objective."""
        self.log_dict({f"val/{name}": value for name, value in self.validated().items()})

    def held_out(self) -> dict[str, float]:
        """Return loss, measures and summary by name for the batches since the last call."""
        if self.is_divided:
            self.val_loss.reduce()
        loss = self.val_loss.compute()
        found = self.val_loss.measured() | self.objective.summary(loss, self.trainer.datamodule.spec)
        self.val_loss.reset()
        return {"loss": loss, **found}

    def configure_optimizers(self) -> dict[str, Any]:
        """Return an optimizer of all trainable parameters with the same learning rate."""
        return configure(
            self, self.scales, self.optimizer, self.scheduler, float(self.trainer.estimated_stepping_batches)
        )


class FinetuneModule(LeanModule):
    """Finetuning; frozen modules are in evaluation mode, so that their norm statistics and dropout do not change.

    All randomness and the trainable parameters of a step are functions of `seed` and the number of the step. Without a
    strategy it is for evaluation only. `origin` has the SHA-256 of the backbone tensors of a parent, by name, and
    `has_loaded_head` is whether the head is that of the parent.
    Unlabelled rows have their own random numbers, so that those of the labelled rows do not depend on them.
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
        strong: Augment | None = None,
        has_loaded_head: bool = False,
    ):
        super().__init__()
        self.backbone, self.objective = backbone, objective
        self.strong, self.unlabelled_seed = strong, derive_seed(seed, "unlabelled")
        self.origin = origin or {}
        self.optimizer, self.scheduler, self.augment, self.seed = optimizer, scheduler, augment, seed
        self.strategy = strategy
        self.scales, self.trained, self.frozen = {}, set(), []
        if strategy is not None:
            scales = strategy.learning_rate_scales(backbone)
            if has_loaded_head and objective.keeps_head and not strategy.trains_loaded_head:
                scales = [(name, 0.0 if name.startswith("objective.") else scale) for name, scale in scales]
            self.scales = assign(scales, [name for name, _ in self.named_parameters()])
            self.set_progress(0.0)
        # Whether trainable parameters or learning-rate scales depend on the step.
        self.has_phases = any(map(callable, self.scales.values())) or bool(
            strategy and (strategy.restarts or strategy.uses_unlabelled)
        )
        self.total_steps = math.inf
        self.monitor = objective.monitor
        self.held_out_loss = RunningMean()
        self.metrics = MetricCollection(objective.metrics(), compute_groups=False)
        for metric in self.metrics.values():
            metric.distributed_available_fn = self.has_divided_metrics
        self.test_part = "test"
        self.spec: Spec | None = None  # of the input of a prediction
        self.test_scores: list[Tensor | None] = []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FinetuneModule:
        """Convert the parameters; the metrics only change their device, not their precision."""
        metrics = self._modules.pop("metrics", None)
        super()._apply(fn, recurse)
        if self.strong is not None:
            self.strong.dtype = self.augment.dtype
        if metrics is not None:
            self.metrics = metrics._apply(lambda value: value.to(fn(value).device))
        return self

    @property
    def unlabelled_rows(self) -> int:
        """The number of unlabelled rows that the strategy has used."""
        return self.strategy.unlabelled_rows

    def set_progress(self, progress: float) -> None:
        """Freeze the parameters that the strategy freezes at a fraction `progress` of the run, and unfreeze the others.

        Raises:
            UserError: all parameters are frozen.
        """
        trained = {name for name, scale in self.scales.items() if at(scale, progress)}
        if trained == self.trained:
            return
        if not trained:
            raise UserError(f"strategy: all parameters are frozen at {progress:.0%} of the run")
        self.trained = trained
        self.frozen = freeze(self, trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> FinetuneModule:
        """Set the training mode, except for frozen modules."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def views(self, batch: Batch) -> Batch:
        """Return the augmented and possibly mixed examples."""
        with computing(batch.part):
            x = self.augment(batch.x)
        kept = {"reference": batch.reference, "rating": batch.rating, "part": batch.part}
        return self.augment.mixed(Batch(x, batch.y, batch.mask, **kept))

    def unlabelled_views(self, rows: Batch, step: int) -> Batch:
        """Return the augmented rows and, if the strategy uses them, strongly augmented ones."""
        seed_step(self.unlabelled_seed, step, self.device)
        with computing(rows.part):
            strong = None if self.strong is None else self.strong(rows.x)
            return Batch(self.augment(rows.x), mask=rows.mask, strong=strong, part=rows.part)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Update the frozen parameters and the strategy for this step."""
        if not self.has_phases:
            return
        self.strategy.progress = self.trainer.global_step / self.total_steps
        self.set_progress(self.strategy.progress)
        if self.strategy.start_step(self.objective, self.backbone):
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of the strategy, by default that of the objective."""
        step = self.trainer.fit_loop.total_batch_idx
        unlabelled = None if batch.unlabelled is None else self.unlabelled_views(batch.unlabelled, step)
        seed_step(self.seed, step, self.device)
        views = self.views(batch)
        views.unlabelled = unlabelled
        with computing(batch.part):
            output = self.strategy.step(self.objective, self.backbone, views)
        return self.accumulate(output, batch.part)

    def on_train_epoch_end(self) -> None:
        """Log train/loss and the measures of the strategy."""
        if world() > 1:
            self.train_loss.reduce_measures()
        measured = {f"train/{name}": value for name, value in self.train_loss.measured().items()}
        super().on_train_epoch_end()  # first, as the metrics of an epoch are written in the order of their first values
        self.log_dict(measured)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the state of the strategy too."""
        super().on_save_checkpoint(checkpoint)
        if state := self.strategy.state_dict():
            checkpoint["strategy"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the strategy too."""
        super().on_load_checkpoint(checkpoint)
        self.strategy.load_state_dict(checkpoint.get("strategy", {}))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to loss and metrics; return the outputs (B, C)."""
        batch.x = self.augment.scale(batch.x)
        output = self.objective.step(self.backbone, batch)
        self.held_out_loss.update(output)
        self.metrics.update(output.outputs, batch.y)
        return output.outputs

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to loss, metrics and, for the test split, `test_scores`; return the outputs (B, C)."""
        outputs = self.validation_step(batch, batch_idx)
        if self.test_part == "test":
            self.test_scores.append(self.objective.scores(outputs, batch.y))
        return outputs

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:
        """Return one dict of plain values per example, with the labels of `spec`."""
        batch.x = self.augment.scale(batch.x)
        return self.objective.to_records(self.objective.predict(self.backbone, batch), batch, self.spec)

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/<metric>."""
        self.log_dict({f"val/{name}": value for name, value in self.validated().items()})

    def on_test_epoch_end(self) -> None:
        """Log loss and metrics of `test_part`, such as test/loss or, for a shifted split, test_<shift>/loss."""
        self._log_held_out(self.test_part)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return an optimizer with the learning-rate scales of the strategy."""
        self.total_steps = float(self.trainer.estimated_stepping_batches)
        return configure(self, self.scales, self.optimizer, self.scheduler, self.total_steps, self.strategy.restarts)

    def has_divided_metrics(self) -> bool:
        """Return `is_divided`, for torchmetrics."""
        return self.is_divided

    def held_out(self) -> dict[str, Any]:
        """Return loss and metrics by name for the batches since the last call."""
        if self.is_divided:
            self.held_out_loss.reduce()
        values = {"loss": self.held_out_loss.compute(), **self.metrics.compute()}
        self.held_out_loss.reset()
        self.metrics.reset()
        return values

    def _log_held_out(self, split: str) -> None:
        self.log_dict({f"{split}/{name}": value for name, value in self.held_out().items()})
