"""Hydra plugins, which must be in this namespace: they call `warmstart.sweep`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Sweeper(HydraSweeper):
    """The sweeper of `-m`: plans all jobs, then runs them with the launcher."""

    def __init__(self, params: dict[str, str] | None = None):
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the context that third-party launchers need."""
        self.context = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def sweep(self, arguments: list[str]) -> None:
        """Plan and run the sweep; exit with its status unless that is 0."""
        from warmstart.stages.runner import StageRunner
        from warmstart.sweep.engine import multirun

        status = multirun(self.context, self.params, arguments, StageRunner())
        if status:
            sys.exit(status)


class Pool(Launcher):
    """The launcher of `warmstart.sweep.launch`, which reads the settings from the config."""

    def __init__(self, **settings: Any):
        self.settings = settings

    def setup(self, **context: Any) -> None:
        """Ignore the context."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Raise an error: Hydra's own sweepers support neither job states nor resuming."""
        raise HydraException("hydra/launcher=pool needs hydra/sweeper=warmstart, which is the default")
