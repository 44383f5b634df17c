"""Finetuning: a supervised objective on a backbone's features, under a strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection

from warmstart.contracts import Augment, Backbone, Batch, Objective, Spec, Strategy, UserError
from warmstart.module.lean import LeanModule
from warmstart.module.mean import RunningMean
from warmstart.module.optimization import assign, at, configure, freeze
from warmstart.module.randomness import seed_step


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
        self.has_phases = any(map(callable, self.scales.values())) or bool(getattr(strategy, "restarts", ()))
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
        if hasattr(self.strategy, "step"):
            output = self.strategy.step(self.objective, self.backbone, self.views(batch))
        else:
            output = self.objective.step(self.backbone, self.views(batch))
        return self.counted(output)

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
        return self.objective.answer(self.objective.predict(self.backbone, batch), batch, self.spec)

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/<metric>."""
        self._log_held_out("val")

    def on_test_epoch_end(self) -> None:
        """Log loss and metrics of `test_part`: test/loss or, of a shifted split, test_<shift>/loss."""
        self._log_held_out(self.test_part)

    def configure_optimizers(self) -> dict[str, Any]:
        """Rates as the strategy says."""
        self.total_steps = float(self.trainer.estimated_stepping_batches)
        restarts = getattr(self.strategy, "restarts", ())
        return configure(self, self.scales, self.optimizer, self.scheduler, self.total_steps, restarts)

    def held_out(self) -> dict[str, Any]:
        """Loss and metrics of the batches since the last time, by name."""
        values = {"loss": self.held_out_loss.compute(), **self.metrics.compute()}
        self.held_out_loss.reset()
        self.metrics.reset()
        return values

    def _log_held_out(self, part: str) -> None:
        self.log_dict({f"{part}/{name}": value for name, value in self.held_out().items()})
