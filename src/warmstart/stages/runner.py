"""Runs the jobs of a sweep, each by its stage. Nothing here imports torch before a job is run or checked."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import DictConfig

from warmstart.run.folder import RunFolder


@dataclass(frozen=True)
class StageRunner:
    """A `warmstart.sweep.job.Runner`."""

    modules: ClassVar[Sequence[str]] = (
        "warmstart.stages.pretrain",
        "warmstart.stages.finetune",
        "warmstart.vmap.group",
    )

    def run(self, config: DictConfig, run: RunFolder, watchers: Sequence[Any] = ()) -> Any:
        """Run a job; only stages that train take watchers."""
        return stage_of(config).run(config, run, *([watchers] if watchers else []))

    def run_group(self, configs: Sequence[DictConfig], runs: Sequence[RunFolder]) -> None:
        """Train jobs of one kind as a vmap group."""
        from warmstart.vmap.group import run

        run(configs, runs)

    def check(self, config: DictConfig) -> None:
        """Build the parts that need no data."""
        from warmstart.training.compatibility import check_fit
        from warmstart.training.components import check_targets

        check_targets(config)
        check_fit(config)

    def check_start(self, config: DictConfig) -> None:
        """Look for what a finetuning starts from."""
        from warmstart.training.start import find_start

        find_start(config)

    def pruning(self, trial: Any, metric: str) -> Any:
        """A callback for the Trainer."""
        from warmstart.training.callbacks.early_stopping import Pruning

        return Pruning(trial, metric)


def stage_of(config: DictConfig) -> Any:
    """The module of the config's stage."""
    return importlib.import_module(f"warmstart.stages.{config.stage}")
