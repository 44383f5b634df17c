"""Forgetting: the change of the parent's held-out metric caused by a finetuning of its backbone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import parent_run
from warmstart.run.saved import load_weights
from warmstart.training import components
from warmstart.training.assemble import build_module
from warmstart.training.callbacks.snapshots import SNAPSHOTS
from warmstart.training.evaluation import validate
from warmstart.training.restore import restore_model
from warmstart.training.teacher import set_targets
from warmstart.training.trainer import build_trainer


class ParentTask:
    """The task of a parent run: its objective with its head, and its validation rows.

    Model and data are released between measurements, to free memory for the finetuning.

    Args:
        run: a finished pretraining, finetuning or soup.
        config: its config.
        snapshot: a snapshot to use instead of its final model.

    Raises:
        UserError: its model or its data has changed.
    """

    def __init__(self, run: RunFolder, config: DictConfig, snapshot: Path | None = None):
        self.run, self.config, self.snapshot = run, config, snapshot
        self.metric, self.before = self.score()

    def score(self, weights: Mapping[str, Tensor] | None = None) -> tuple[str, float | None]:
        """Return name and value of the run's monitored metric, with the given or its own backbone weights.

        Masks and noise are the same every time. The value is None if it is not finite.
        """
        backbone, objective, saved = restore_model(self.run, self.config, self.snapshot)
        if weights is not None:
            load_weights(backbone, weights, "the finetuned backbone")
        data = components.data_module(self.config, rebuild(saved.preprocessor)).prepare()
        if data.fingerprint != self.run.record["data"]["fingerprint"]:
            raise UserError(
                f"forgetting=true: the data of {self.run.path} has changed since that run (another fingerprint), "
                "so forgetting cannot be measured: remove it"
            )
        teacher = set_targets(self.config, data)
        if teacher is not None and teacher["model_sha256"] != self.run.record["teacher"]["model_sha256"]:
            raise UserError(
                f"forgetting=true: the teacher of {self.run.path}, {teacher['path']}, has changed since that run, so "
                "forgetting cannot be measured: remove it"
            )
        module = build_module(self.config, backbone, objective, data.preprocessor)
        trainer = build_trainer(self.config.trainer, self.run.path, None, [])
        value = validate(trainer, module, data)[module.monitor[0]]
        return module.monitor[0], value if math.isfinite(value) else None


def parent_task(config: DictConfig, parent: dict[str, Any] | None) -> ParentTask | None:
    """Return the task of the parent run, evaluated before the finetuning; None if there is none to evaluate.

    Args:
        config: config of the finetuning.
        parent: its parent record.

    Raises:
        UserError: the task cannot be evaluated, or layers of the backbone are reinitialized.
    """
    if not config.get("forgetting"):
        return None
    run = None if Init.parse(config.init).shuffled else parent_run(parent)
    if run is None:
        screen.say(f"init={config.init} has no parent run: forgetting is not measured", style="yellow")
        return None
    if config.reinitialize:
        raise UserError("forgetting=true requires the complete backbone of the parent: remove reinitialize")
    folder = Path(parent["path"])
    return ParentTask(run, run.config(tuple(config.trust)), folder if folder.parent.name == SNAPSHOTS else None)


@contextlib.contextmanager
def forgetting(run: RunFolder, task: ParentTask | None, backbone: nn.Module) -> Iterator[None]:
    """Evaluate the parent's task again after the block has trained the backbone, and record the result.

    The cost of the run, which the block records, excludes this evaluation.
    """
    if task is None:
        yield
        return
    with run.recording():
        yield
        _, after = task.score(backbone.state_dict())
        found = {"metric": task.metric, "before": task.before, "after": after, "parent": task.run.record["id"]}
        run.note(forgetting=found)
        of = f"{task.run.record['stage']} {task.run.record['id']}"
        numbers = [screen.number(math.nan if value is None else value) for value in (task.before, after)]
        screen.say(f"forgetting: {task.metric} of {of} was {numbers[0]}, is {numbers[1]}")
