"""Runs the jobs of a sweep with the stages; torch is only imported when a job is run or checked."""

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

    def run(self, config: DictConfig, run: RunFolder, callbacks: Sequence[Any] = ()) -> Any:
        """Run a job; only stages that train accept callbacks."""
        return stage_of(config).run(config, run, *([callbacks] if callbacks else []))

    def run_group(self, configs: Sequence[DictConfig], runs: Sequence[RunFolder]) -> None:
        """Train the jobs of a vmap group."""
        from warmstart.vmap.group import run

        run(configs, runs)

    def check(self, config: DictConfig) -> None:
        """Build the components that need no data."""
        from warmstart.training.compatibility import check_compatibility
        from warmstart.training.components import check_targets

        check_targets(config)
        check_compatibility(config)

    def check_start(self, config: DictConfig) -> None:
        """Check that the initial weights and the teacher exist, and that the teacher is suitable."""
        from warmstart.training.start import find_start
        from warmstart.training.teacher import check_teacher

        find_start(config)
        check_teacher(config)

    def pruning(self, trial: Any, metric: str) -> Any:
        """Return the pruning callback of the Trainer."""
        from warmstart.training.callbacks.early_stopping import Pruning

        return Pruning(trial, metric)


def stage_of(config: DictConfig) -> Any:
    """Return the module of the config's stage."""
    return importlib.import_module(f"warmstart.stages.{config.stage}")
