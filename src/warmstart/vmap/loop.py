"""The training loop of a vmap group of J jobs; steps and rows of metrics.csv match those of Lightning's loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torchmetrics import Metric

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.data.datamodule import MemoryDataModule
from warmstart.data.loader import GatherLoader
from warmstart.run.folder import RunFolder
from warmstart.training.callbacks.curves import check_training, check_validation
from warmstart.training.callbacks.early_stopping import should_stop
from warmstart.training.checkpoint import is_better
from warmstart.training.length import min_steps, with_min_steps
from warmstart.training.logger import RunLogger
from warmstart.training.mean import RunningMean
from warmstart.training.modules import seed_step
from warmstart.training.signals import StopBetweenBatches
from warmstart.vmap.stack import Stack, StackOptimizer


@dataclass(eq=False)
class Job:
    """A run of a vmap group.

    Args:
        lineage: parent and transfer, as in its record.
        best: its metrics at the best validation.
        waited: validations since the best one.
        scores: one value per test example.
        initial_features: features before the first step.
        error: why it failed; it is then excluded from training and evaluation.
        steps: the step at which it ended; None while it trains.
        stopped: whether early stopping ended it; it is then excluded from training only.
    """

    config: DictConfig
    run: RunFolder
    data: MemoryDataModule
    module: Any
    lineage: dict[str, Any]
    logger: RunLogger | None = None
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    test: dict[str, float] = field(default_factory=dict)
    scores: list[Tensor | None] = field(default_factory=list)
    initial_features: Tensor | None = None
    error: BaseException | None = None
    steps: int | None = None
    stopped: bool = False

    @property
    def metrics(self) -> dict[str, Metric]:
        """Return the metrics of held-out data, without the loss."""
        return dict(self.module.metrics.items())

    def log(self, values: dict[str, float], step: int) -> None:
        self.logger.log_metrics(values, step)

    def fail(self, error: UserError, step: int) -> None:
        """Exclude the job from training and evaluation."""
        self.error, self.steps = error, step


class VmapLoop:
    """Trains and tests jobs that differ in numeric settings only; keeps the best weights of each in memory.

    Args:
        jobs: sorted so that jobs with the same optimizer settings are adjacent.
        signals: checked after each batch for a request to stop.
    """

    def __init__(self, jobs: Sequence[Job], device: torch.device, signals: StopBetweenBatches):
        self.jobs, self.device, self.signals = jobs, device, signals
        self.data, self.module = jobs[0].data, jobs[0].module
        self.per_epoch = len(self.data.train_loader)
        self.settings = with_min_steps(jobs[0].config.trainer, self.per_epoch)
        epochs, steps = self.settings.max_epochs, self.settings.max_steps
        self.total = min(epochs * self.per_epoch if epochs >= 0 else steps, steps if steps >= 0 else math.inf)
        modules = [job.module for job in jobs]
        self.stack = Stack(modules, device)
        self.optimizer = StackOptimizer(self.stack, modules, self.total)
        self.step, self.epoch, self.validated = 0, 0, -1

    @property
    def active(self) -> list[tuple[int, Job]]:
        """Return jobs that are still training, with their rows in the stack."""
        return [(row, job) for row, job in self.not_failed if not job.stopped]

    @property
    def not_failed(self) -> list[tuple[int, Job]]:
        """Return jobs that have not failed, with their rows in the stack."""
        return [(row, job) for row, job in enumerate(self.jobs) if job.error is None]

    def run(self) -> None:
        """Train, restore the best weights of each job, and evaluate the test splits if `test` is set."""
        while self.step < self.total and self.active:
            self.train_epoch()
        if self.validated != self.step and self.active:
            self.validate(self.step)
        self.stack.restore()
        if self.jobs[0].config.get("test"):
            for split in self.data.test_parts:
                for _, job, values in self.evaluate(split, self.data.held_out(split), self.not_failed):
                    job.log(values, self.step if job.steps is None else job.steps)
                    job.test |= values

    def train_epoch(self) -> None:
        """Train on one epoch, or until the last step."""
        mean = RunningMean()
        self.module.train()
        for index, batches in enumerate(zip(*(job.data.train_loader for job in self.jobs))):
            output = self.train_step(batches)
            mean.update(output)
            self.log_curves(output.loss)
            self.signals.check()
            if self.is_time_to_validate(index):
                self.validate(self.step - 1)
                self.log_epoch(mean, [(row, job) for row, job in self.not_failed if job.steps == self.step])
            if self.step == self.total or not self.active:
                break
        self.log_epoch(mean, self.active)
        self.epoch += 1

    def log_epoch(self, mean: RunningMean, jobs: Sequence[tuple[int, Job]]) -> None:
        """Log the mean training loss of the epoch for these jobs."""
        losses = mean.each()
        for row, job in jobs:
            values = {"train/loss": losses[row]}
            job.log(values, self.step - 1)
            job.last |= values

    def train_step(self, batches: Sequence[Batch]) -> StepOutput:
        """Run forward, backward and the optimizer step of all jobs; losses have shape (J,)."""
        batches = [batch.to(self.device) for batch in batches]
        y = None if batches[0].y is None else torch.stack([batch.y for batch in batches])
        output = self.stack(self.augmented([batch.x for batch in batches], self.step), y)
        output.loss.sum().backward()
        self.optimizer.step()
        self.step += 1
        return output

    def augmented(self, raw: Sequence[Tensor], step: int) -> Tensor:
        """Scale and augment the batch (B, ...) of each job with the job's own random numbers: (J, B, ...)."""
        if not self.module.augment.single:
            return self.module.augment.scale(torch.cat(list(raw))).unflatten(0, (len(raw), -1))
        stacked = []
        for job, x in zip(self.jobs, raw):
            seed_step(job.module.seed, step, self.device)
            stacked.append(torch.cat([job.module.augment(x) for _ in range(job.module.objective.views)]))
        return torch.stack(stacked)

    def log_curves(self, losses: Tensor) -> None:
        """Log loss and learning rate every `log_every_n_steps` steps; a job with a non-finite loss fails."""
        if self.step % max(1, int(self.settings.log_every_n_steps)):
            return
        values, rates = losses.tolist(), self.optimizer.rates()
        for row, job in self.active:
            try:
                check_training(values[row], rates[row], self.step)
            except UserError as error:
                job.fail(error, self.step)
            else:
                job.logger.log_metrics({"train/loss_step": values[row], "learning_rate": rates[row]}, self.step)

    def is_time_to_validate(self, index: int) -> bool:
        """Return whether to validate after batch `index` of this epoch, by the same rule as Lightning."""
        epochs, interval = self.settings.check_val_every_n_epoch, self.settings.val_check_interval or self.per_epoch
        if epochs is None:
            return self.step % interval == 0
        return (self.epoch + 1) % epochs == 0 and (index + 1) % interval == 0

    def validate(self, step: int) -> None:
        """Validate active jobs, keep the weights of those that improved, and apply early stopping."""
        self.validated = self.step
        improved = []
        name, mode = self.module.monitor
        patience = self.jobs[0].config.get("patience")
        for row, job, values in self.evaluate("val", self.data.val_dataloader(), self.active):
            job.log(values, step)
            job.last |= values
            try:
                check_validation(values["val/loss"], self.step)
            except UserError as error:
                job.fail(error, self.step)
                continue
            job.waited += 1
            if is_better(values[name], job.best.get(name), mode):
                job.best, job.waited = values, 0
                improved.append(row)
            if should_stop(job.waited, patience, self.step, min_steps(self.settings)):
                job.stopped, job.steps = True, self.step
        self.stack.keep(improved)

    @torch.no_grad()
    def evaluate(
        self, split: str, loader: GatherLoader, jobs: Sequence[tuple[int, Job]]
    ) -> list[tuple[int, Job, dict[str, float]]]:
        """Return loss and metrics of these jobs on a split, with their rows in the stack."""
        self.module.eval()
        mean = RunningMean()
        for index, batch in enumerate(loader):
            moved = batch.to(self.device)
            if self.module.objective.views > 1:
                output = self.stack(self.augmented([moved.x] * len(self.jobs), index), moved.y, y_dim=None)
            else:
                output = self.stack(self.module.augment.scale(moved.x), moved.y, x_dim=None, y_dim=None)
            mean.update(output)
            for row, job in jobs:
                for metric in job.metrics.values():
                    metric.update(output.outputs[row].cpu(), batch.y)
                if split == "test":
                    job.scores.append(job.module.objective.scores(output.outputs[row].cpu(), batch.y))
            self.signals.check()
        losses = mean.each()
        measured = []
        for row, job in jobs:
            values = {f"{split}/loss": losses[row]}
            for name, metric in job.metrics.items():
                values[f"{split}/{name}"] = float(metric.compute())
                metric.reset()
            measured.append((row, job, values))
        self.module.train()
        return measured
