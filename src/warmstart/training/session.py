"""The training loop that pretraining and finetuning share: record, train, restore the best weights, test."""

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
from warmstart.distributed.batch_norm import synchronize_norms
from warmstart.distributed.processes import agreed, broadcast, rank, world
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.run.scores import save_scores
from warmstart.training.callbacks.averaging import Averaging, check_average
from warmstart.training.callbacks.curves import Curves
from warmstart.training.callbacks.early_stopping import Patience
from warmstart.training.callbacks.progress import ProgressLines
from warmstart.training.callbacks.step_time import StepTime
from warmstart.training.callbacks.throughput import Throughput
from warmstart.training.checkpoint import LAST, BestAndLast, find_checkpoint
from warmstart.training.components import build, build_several
from warmstart.training.evaluation import measure, validate
from warmstart.training.length import check_interval, min_steps, optimizer_steps, with_min_steps
from warmstart.training.logger import RunLogger
from warmstart.training.memory import peak_memory_mb, reset_peak_memory
from warmstart.training.record import conclude, examples, note_average
from warmstart.training.reference import set_references
from warmstart.training.sharding import shards, unshard
from warmstart.training.trainer import build_trainer, fit, measured

SHOWN, LONGEST = 3, 400  # training rows on the screen, and characters of each


def build_average(config: DictConfig) -> Any:
    """Build the average of the weights; None if there is none."""
    return None if config.get("average") is None else build(config.average)


def check_length(config: DictConfig, batches: int) -> None:
    """Raise an error if no epoch of `batches` reaches a validation, or the average includes no step."""
    trainer = with_min_steps(config.trainer, batches)
    check_interval(trainer, batches)
    average = build_average(config)
    if average is not None:
        check_average(average, optimizer_steps(trainer, batches))


class Session:
    """A training within the context of its run: `with Session(...) as session`, then `fit`, `test`, `conclude`.

    On exit, also after an error, the logs are closed, and status and cost are recorded.

    Args:
        run: run folder; if it has a checkpoint, the training resumes from it.
        config: a composed pretraining or finetuning config.
        module: module to train.
        data: data module.
        callbacks: additional callbacks of the Trainer.
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
        self.metrics: dict[str, float] = {}  # metrics of the saved weights

    def __enter__(self) -> Session:
        """Open the record and the logs, and build the Trainer."""
        reset_peak_memory()
        self.started, self.earlier_cost = time.monotonic(), self.run.record.get("cost") or {}
        with contextlib.ExitStack() as opened:
            opened.enter_context(self.run.recording())
            screen.say(cores.describe())
            self.checkpoints = broadcast(self.run.path) / "checkpoints"
            with agreed():
                found = find_checkpoint(self.checkpoints) if rank() == 0 else None
            self.state = broadcast(found)
            log = (self.config.logger, self.state and self.state["log"]) if rank() == 0 else ({}, None)
            self.logger = RunLogger(self.run.path, *log)
            opened.push(lambda kind, *_: self.logger.close("failed" if kind else "success"))
            self.best = BestAndLast(self.checkpoints, self.module.monitor)
            length = self.length = with_min_steps(self.config.trainer, len(self.data.train_loader))
            if length is not self.config.trainer:
                steps = f"trainer.min_steps={length.min_steps}"
                screen.say(f"{length.max_epochs} epochs instead of {self.config.trainer.max_epochs}: {steps}")
            if world() > 1:
                synchronize_norms(self.module)
            self.trainer = build_trainer(length, self.run.path, self.logger, self._all_callbacks())
            opened.callback(self._note_cost)
            self.opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        """Record the cost, and close the logs and the record."""
        return self.opened.__exit__(*error)

    def fit(self) -> None:
        """Train, and load the best weights by validation."""
        module, trainer, best = self.module, self.trainer, self.best
        try:
            set_references(self.config, module, self.data, trainer)
            if self.state is None:
                self.logger.log_text("config", OmegaConf.to_yaml(self.config, resolve=True))
                self._show_supervised()
            fit(trainer, module, self.data, self.state and self.checkpoints / LAST)
            unshard(trainer)
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
        """Evaluate on the test splits; save the scores of the test examples."""
        self.metrics |= measure(self.trainer, self.module, self.data)
        save_scores(self.run, self.module.test_scores)

    def conclude(self) -> None:
        """Record the metrics, and write the hparams row.

        Raises:
            UserError: a metric is not finite.
        """
        step = self.trainer.global_step
        conclude(self.run, self.config, self.length, self.logger, self.metrics, self.last, self.best.best, step)

    def _show_supervised(self) -> None:
        """Print and log a few training rows with their supervised parts marked, if there are such."""
        examples = self.data.marked(SHOWN)
        if examples:
            self.logger.log_text("supervised", "\n\n".join(examples))
            screen.say("supervised parts of training rows, in double brackets:")
        for example in examples:
            screen.say(
                example if len(example) <= LONGEST else f"{example[: LONGEST // 2]} ... {example[-LONGEST // 2 :]}"
            )

    def _all_callbacks(self) -> list[pl.Callback]:
        config, average = self.config, build_average(self.config)
        every = max(1, int(config.trainer.log_every_n_steps))
        self.averaging = None if average is None else Averaging(average)
        first = [] if self.averaging is None else [self.averaging]
        progress = ProgressLines(f"{config.stage} {config.experiment}")
        self.step_time = StepTime()
        callbacks = [self.step_time, *first, self.best, Curves(every), Throughput(every)]
        callbacks += [*self._visualizations(), *self.callbacks, progress]
        if config.get("patience") is not None:
            callbacks.append(Patience(self.module.monitor, config.patience, min_steps(config.trainer)))
        return callbacks

    def _visualizations(self) -> list[pl.Callback]:
        chosen = self.config.visualization
        if rank() > 0:
            return []
        if chosen and shards(self.config):
            screen.log.info("visualizations are disabled: trainer=fsdp divides the parameters")
            return []
        if chosen and self.logger.writer is None:
            screen.log.info("visualizations are disabled: they require logger=tensorboard")
            return []
        return build_several(chosen, "visualization")

    def _note_cost(self) -> None:
        trainer, earlier = self.trainer, self.earlier_cost
        batches, per_epoch = trainer.fit_loop.total_batch_idx + 1, trainer.num_training_batches
        cost = {
            "seconds": earlier.get("seconds", 0.0) + time.monotonic() - self.started,
            "steps": trainer.global_step,
            "examples": examples(batches, per_epoch, self.data) + self.module.unlabelled_rows,
            "peak_memory_mb": max(peak_memory_mb(), earlier.get("peak_memory_mb") or 0),
            **self.step_time.timer.cost(),
        }
        self.run.note(cost={**(self.run.record["cost"] or {}), **cost})
