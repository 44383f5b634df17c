"""The interface through which a sweep runs jobs without importing the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from omegaconf import DictConfig

from warmstart.run.folder import RunFolder

RunStage = Callable[[DictConfig, RunFolder, Sequence[Any]], Any]
RunGroup = Callable[[Sequence[DictConfig], Sequence[RunFolder]], None]


class Runner(Protocol):
    """Runs jobs in any process: it must be picklable, and must not import torch when it is created.

    A worker process imports `modules` before its first job.
    """

    modules: Sequence[str]

    def run(self, config: DictConfig, run: RunFolder, watchers: Sequence[Any]) -> Any:
        """Run a job in its open run folder; `watchers` are additional callbacks for the Trainer."""

    def run_group(self, configs: Sequence[DictConfig], runs: Sequence[RunFolder]) -> None:
        """Train similar jobs at once, in their open run folders.

        Raises:
            CannotBatch: the jobs must be run one by one; nothing was written.
            GroupFailed: an error stopped all jobs; the unfinished ones are interrupted.
        """

    def check(self, config: DictConfig) -> None:
        """Check that the components of a config can be built and are compatible.

        Raises:
            UserError: they cannot, or are not.
        """

    def check_start(self, config: DictConfig) -> None:
        """Check that the initial weights of a config exist.

        Raises:
            UserError: they are missing or damaged.
        """

    def pruning(self, trial: Any, metric: str) -> Any:
        """Return a callback that reports the metric to an Optuna trial, and raises Pruned if the trial should stop."""
