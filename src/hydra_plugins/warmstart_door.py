"""Hydra's way in: its sweepers and launchers must live in this namespace; all they do is in `warmstart.sweep`."""

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
    """Runs `-m`: plans all jobs, then has them run by the launcher."""

    def __init__(self, params: dict[str, str] | None = None):
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the launchers of other makers need."""
        self.context = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def sweep(self, arguments: list[str]) -> None:
        """Plan and run; leave with the exit status where it is not 0."""
        from warmstart.stages.runner import StageRunner
        from warmstart.sweep.engine import multirun

        status = multirun(self.context, self.params, arguments, StageRunner())
        if status:
            sys.exit(status)


class Pool(Launcher):
    """Names `warmstart.sweep.launch`, which reads the settings from the config."""

    def __init__(self, **settings: Any):
        self.settings = settings

    def setup(self, **context: Any) -> None:
        """Nothing to keep."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Not Hydra's way: its own sweepers know neither states nor resuming."""
        raise HydraException("hydra/launcher=pool needs hydra/sweeper=warmstart, which is the default")
