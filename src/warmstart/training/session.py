"""What pretraining and finetuning do alike: open the run's record, train, keep the best, test, close the record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from warmstart.core import screen
from warmstart.core.errors import Pruned
from warmstart.data.datamodule import MemoryDataModule
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.run.scores import save_scores
from warmstart.training.callbacks.averaging import Averaging, check_average
from warmstart.training.callbacks.curves import Curves
from warmstart.training.callbacks.early_stopping import Patience
from warmstart.training.callbacks.progress import ProgressLines
from warmstart.training.callbacks.throughput import Throughput
from warmstart.training.checkpoint import LAST, BestAndLast, find_checkpoint
from warmstart.training.components import build, build_several
from warmstart.training.evaluation import measure, validate
from warmstart.training.logger import RunLogger
from warmstart.training.memory import forget_peak_memory, peak_memory_mb
from warmstart.training.record import conclude, examples, note_average
from warmstart.training.trainer import build_trainer, check_interval, fit, measured, optimizer_steps


def build_average(config: DictConfig) -> Any:
    """The average of the weights; None where there is to be none."""
    return None if config.get("average") is None else build(config.average)


def check_length(config: DictConfig, batches: int) -> None:
    """Refuse a validation that no epoch of so many batches reaches, and an average that no step would join."""
    check_interval(config.trainer, batches)
    average = build_average(config)
    if average is not None:
        check_average(average, optimizer_steps(config.trainer, batches))


class Session:
    """A training inside its run's record: `with Session(...) as session`, then `fit`, `test` if at all, `conclude`.

    However it ends, the logs are closed, and its cost and how it ended are in the record.

    Args:
        run: its folder; where that holds a checkpoint, the training goes on from there.
        config: a composed pretraining or finetuning config.
        module: what is trained.
        data: what on.
        callbacks: further ones for the Trainer.
    """

    def __init__(
        self,
        run: RunFolder,
        config: DictConfig,
        module: pl.LightningModule,
        data: MemoryDataModule,
        callbacks: Sequence[pl.Callback] = (),
    ):
        self.run, self.config, self.module, self.data, self.callbacks = run, config, module, data, callbacks
        self.last: dict[str, float] = {}  # metrics of the last validation
        self.metrics: dict[str, float] = {}  # of the weights that are kept

    def __enter__(self) -> Session:
        """Open the record and the logs, and build the Trainer."""
        forget_peak_memory()
        self.started, self.earlier = time.monotonic(), self.run.record.get("cost") or {}
        with contextlib.ExitStack() as opened:
            opened.enter_context(self.run.recording())
            screen.say(cores.describe())
            self.checkpoints = self.run.path / "checkpoints"
            self.state = find_checkpoint(self.checkpoints)
            self.logger = RunLogger(self.run.path, self.config.logger, self.state and self.state["log"])
            opened.push(lambda kind, *_: self.logger.close("failed" if kind else "success"))
            self.best = BestAndLast(self.checkpoints, self.module.monitor)
            self.trainer = build_trainer(self.config.trainer, self.run.path, self.logger, self._watchers())
            opened.callback(self._note_cost)
            self.opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        """Note the cost, close the logs and the record."""
        return self.opened.__exit__(*error)

    def fit(self) -> None:
        """Train, and go back to the weights that were best on validation."""
        module, trainer, best = self.module, self.trainer, self.best
        try:
            if self.state is None:
                self.logger.log_text("config", OmegaConf.to_yaml(self.config, resolve=True))
            fit(trainer, module, self.data, self.state and self.checkpoints / LAST)
            best.metrics |= measured(trainer)
            if best.saved_step != trainer.global_step:
                best.metrics |= validate(trainer, module, self.data)
        except Pruned:
            latest = {name: value for name, value in measured(trainer).items() if name.startswith("val/")}
            self.run.note(metrics={**latest, **best.best})
            raise
        self.last = dict(best.metrics)
        self.metrics = {**self.last, **best.best}
        module.load_state_dict(best.best_weights())
        if self.averaging is not None:
            note_average(self.run, best, self.averaging.count)

    def test(self) -> None:
        """Measure on the test splits; the scores of the test examples are written down."""
        self.metrics |= measure(self.trainer, self.module, self.data)
        save_scores(self.run, self.module.test_scores)

    def conclude(self) -> None:
        """Note the metrics in the record, and write the hparams row.

        Raises:
            UserError: a metric is not finite.
        """
        step = self.trainer.global_step
        conclude(self.run, self.config, self.logger, self.metrics, self.last, self.best.best, step)

    def _watchers(self) -> list[pl.Callback]:
        config, average = self.config, build_average(self.config)
        every = max(1, int(config.trainer.log_every_n_steps))
        self.averaging = None if average is None else Averaging(average)
        first = [] if self.averaging is None else [self.averaging]
        progress = ProgressLines(f"{config.stage} {config.experiment}")
        watchers = [*first, self.best, Curves(every), Throughput(every)]
        watchers += [*self._visualizations(), *self.callbacks, progress]
        if config.get("patience") is not None:
            watchers.append(Patience(self.module.monitor, config.patience, config.trainer.min_steps))
        return watchers

    def _visualizations(self) -> list[pl.Callback]:
        chosen = self.config.visualization
        if chosen and self.logger.writer is None:
            screen.log.info("no visualization: it needs logger=tensorboard")
            return []
        return build_several(chosen, "visualization")

    def _note_cost(self) -> None:
        trainer, earlier = self.trainer, self.earlier
        cost = {
            "seconds": earlier.get("seconds", 0.0) + time.monotonic() - self.started,
            "steps": trainer.global_step,
            "examples": examples(trainer.fit_loop.total_batch_idx + 1, trainer.num_training_batches, self.data),
            "peak_memory_mb": max(peak_memory_mb(), earlier.get("peak_memory_mb") or 0),
        }
        self.run.note(cost={**(self.run.record["cost"] or {}), **cost})
