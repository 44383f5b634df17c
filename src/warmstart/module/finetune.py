"""Finetuning: a supervised objective on a backbone's features, under a strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection

from warmstart.contracts import Augment, Backbone, Batch, Objective, Strategy
from warmstart.module.lean import LeanModule
from warmstart.module.mean import RunningMean
from warmstart.module.optimization import assign, configure, freeze
from warmstart.module.randomness import seed_step


class FinetuneModule(LeanModule):
    """Frozen parts stay in evaluation mode, so that their norm statistics and dropout do not move either.

    All randomness of a step is a function of `seed` and the step's number.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        strategy: Strategy,
        optimizer: Callable[..., Any],
        scheduler: Callable[..., float],
        augment: Augment,
        seed: int,
    ):
        super().__init__()
        self.backbone, self.objective = backbone, objective
        self.optimizer, self.scheduler, self.augment, self.seed = optimizer, scheduler, augment, seed
        self.scales = assign(strategy.claims(backbone.depths()), [name for name, _ in self.named_parameters()])
        self.frozen = freeze(self, self.scales)
        self.monitor = objective.monitor
        self.train_loss, self.held_out_loss = RunningMean(), RunningMean()
        self.metrics = MetricCollection(objective.metrics(), compute_groups=False)
        self.test_scores: list[Tensor | None] = []

    def train(self, mode: bool = True) -> FinetuneModule:
        """Training mode for what trains."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def views(self, batch: Batch) -> Batch:
        """The augmented examples, mixed with each other where asked."""
        return self.augment.mixed(Batch(self.augment(batch.x), batch.y, batch.mask))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's mean loss."""
        seed_step(self.seed, self.trainer.fit_loop.total_batch_idx, self.device)
        output = self.objective.step(self.backbone, self.views(batch))
        self.train_loss.update(output)
        return output.loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loss added up so far in this epoch."""
        checkpoint["train_loss"] = self.train_loss.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on adding up."""
        self.train_loss.load_state_dict(checkpoint["train_loss"])

    def on_train_epoch_end(self) -> None:
        """Log train/loss."""
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to loss and metrics; return the outputs (B, C)."""
        batch.x = self.augment.scale(batch.x)
        output = self.objective.step(self.backbone, batch)
        self.held_out_loss.update(output)
        self.metrics.update(output.outputs, batch.y)
        return output.outputs

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to loss, metrics and `test_scores`; return the outputs (B, C)."""
        outputs = self.validation_step(batch, batch_idx)
        self.test_scores.append(self.objective.scores(outputs, batch.y))
        return outputs

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/<metric>."""
        self._log_held_out("val")

    def on_test_epoch_end(self) -> None:
        """Log test/loss and test/<metric>."""
        self._log_held_out("test")

    def configure_optimizers(self) -> dict[str, Any]:
        """Rates as the strategy says."""
        return configure(
            self, self.scales, self.optimizer, self.scheduler, float(self.trainer.estimated_stepping_batches)
        )

    def held_out(self) -> dict[str, Any]:
        """Loss and metrics of the batches since the last time, by name."""
        values = {"loss": self.held_out_loss.compute(), **self.metrics.compute()}
        self.held_out_loss.reset()
        self.metrics.reset()
        return values

    def _log_held_out(self, part: str) -> None:
        self.log_dict({f"{part}/{name}": value for name, value in self.held_out().items()})
