"""Forgetting: the change of a held-out metric of the initial weights caused by a finetuning of their backbone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig
from torch import nn

from warmstart.config.resolve import GENERIC
from warmstart.config.rewrite import merged, without
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
from warmstart.training.compatibility import abilities_of
from warmstart.training.evaluation import validate
from warmstart.training.frozen import unloaded_head
from warmstart.training.restore import restore_model
from warmstart.training.start import build_objective, find_start, given_preprocessor
from warmstart.training.teacher import set_targets
from warmstart.training.trainer import build_trainer

Model = tuple[nn.Module, Any]  # backbone and objective


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
        self.record, self.name = {"parent": run.record["id"]}, f"{run.record['stage']} {run.record['id']}"
        self.metric, self.before = self.score()

    def score(self, model: Model | None = None) -> tuple[str, float | None]:
        """Return name and value of the run's monitored metric, with its own weights or those of a finetuned model.

        Masks and noise are the same every time. The value is None if it is not finite.
        """
        backbone, objective, saved = restore_model(self.run, self.config, self.snapshot)
        if model is not None:
            load_finetuned(backbone, objective, model)
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
        return evaluated(self.config, backbone, objective, data, self.run.path)


class GenericTask:
    """The task of `generic`, a pretraining objective on generic data, with initial weights that are no run.

    Args:
        config: that of the finetuning.

    Raises:
        UserError: the initial weights or the data cannot be loaded.
    """

    def __init__(self, config: DictConfig):
        self.config = merged(without(config, ("generic", *GENERIC)), {"stage": "pretrain", **config.generic})
        name = components.short_name(self.config.data)
        self.record, self.name = {"parent": None, "data": name}, f"the generic data {name}"
        self.metric, self.before = self.score()

    def score(self, model: Model | None = None) -> tuple[str, float | None]:
        """Return name and value of the held-out metric, with the initial weights or those of a finetuned model."""
        start, _ = find_start(self.config)
        data = components.data_module(self.config, given_preprocessor(self.config, start)).prepare()
        backbone = components.build(self.config.backbone, spec=data.spec)
        load_weights(backbone, start.weights, start.name)
        objective = build_objective(self.config, backbone, data)
        if unloaded_head(objective, start) is not None:
            raise UserError(
                f"forgetting=true: {start.name} has no head for generic.objective="
                f"{components.short_name(self.config.objective)}: remove it"
            )
        if model is not None:
            load_finetuned(backbone, objective, model)
        return evaluated(self.config, backbone, objective, data, Path(self.config.output_dir))


def load_finetuned(backbone: nn.Module, objective: nn.Module, model: Model) -> None:
    """Load the weights of a finetuned backbone, and of its head if the finetuning trained the same head further."""
    own, head = model
    load_weights(backbone, own.state_dict(), "the finetuned backbone")
    if head.keeps_head and head.task == objective.task and objective.state_dict():
        load_weights(objective, head.state_dict(), "the finetuned backbone (head)")


def evaluated(
    config: DictConfig, backbone: nn.Module, objective: nn.Module, data: Any, folder: Path
) -> tuple[str, float | None]:
    """Return name and value of the monitored metric on the validation rows; None if it is not finite."""
    module = build_module(config, backbone, objective, data.preprocessor)
    value = validate(build_trainer(config.trainer, folder, None, []), module, data)[module.monitor[0]]
    return module.monitor[0], value if math.isfinite(value) else None


def parent_task(config: DictConfig, parent: dict[str, Any] | None) -> ParentTask | GenericTask | None:
    """Return the task of the parent run, or else of `generic`, evaluated before the finetuning; None if there is none.

    Args:
        config: config of the finetuning.
        parent: its parent record.

    Raises:
        UserError: the task cannot be evaluated, or layers of the backbone are reinitialized.
    """
    if not config.get("forgetting"):
        return None
    init = Init.parse(config.init)
    run = None if init.shuffled else parent_run(parent)
    is_generic = init.is_pretrained_hub and config.get("generic") is not None
    needs = get_object(config.generic.objective._target_).needs if is_generic else frozenset()
    if run is None and (not is_generic or not needs <= abilities_of(config.backbone)):
        reason = "cannot be evaluated with generic.objective" if is_generic else "has no parent run"
        screen.say(f"init={config.init} {reason}: forgetting is not measured", style="yellow")
        return None
    if config.reinitialize:
        raise UserError("forgetting=true requires the complete backbone of the parent: remove reinitialize")
    if run is None:
        return GenericTask(config)
    folder = Path(parent["path"])
    return ParentTask(run, run.config(tuple(config.trust)), folder if folder.parent.name == SNAPSHOTS else None)


@contextlib.contextmanager
def forgetting(run: RunFolder, task: ParentTask | GenericTask | None, model: Model) -> Iterator[None]:
    """Evaluate a task again after the block has trained the model, and record the result.

    The cost of the run, which the block records, excludes this evaluation.
    """
    if task is None:
        yield
        return
    with run.recording():
        yield
        _, after = task.score(model)
        run.note(forgetting={"metric": task.metric, "before": task.before, "after": after, **task.record})
        numbers = [screen.number(math.nan if value is None else value) for value in (task.before, after)]
        screen.say(f"forgetting: {task.metric} of {task.name} was {numbers[0]}, is {numbers[1]}")
