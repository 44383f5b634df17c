"""What a sweep is given by the one who starts it: it runs jobs, but knows no stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from omegaconf import DictConfig

from warmstart.run.folder import RunFolder

RunStage = Callable[[DictConfig, RunFolder, Sequence[Any]], Any]
RunGroup = Callable[[Sequence[DictConfig], Sequence[RunFolder]], None]


class Runner(Protocol):
    """Runs jobs in whichever process it is sent to, so it must be picklable; creating it imports no torch.

    `modules` are those that a worker process imports before its first job.
    """

    modules: Sequence[str]

    def run(self, config: DictConfig, run: RunFolder, watchers: Sequence[Any]) -> Any:
        """Run a job in its open folder; `watchers` are further callbacks for the Trainer."""

    def run_group(self, configs: Sequence[DictConfig], runs: Sequence[RunFolder]) -> None:
        """Train jobs of one kind at once, in their open folders.

        Raises:
            CannotBatch: they have to be run one by one; nothing was written.
            GroupFailed: something stopped all of them; what was not done is left interrupted.
        """

    def check(self, config: DictConfig) -> None:
        """Refuse a config whose parts cannot be built or do not fit.

        Raises:
            UserError: says why.
        """

    def check_start(self, config: DictConfig) -> None:
        """Refuse a config whose `init` cannot be found.

        Raises:
            UserError: says why.
        """

    def pruning(self, trial: Any, metric: str) -> Any:
        """A watcher that reports the metric to an Optuna trial, and raises Pruned when the trial is to be stopped."""
