"""What a finetuning forgets: the held-out score of its parent, with the backbone as it was and as it has become."""

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
from warmstart.training.restore import restore_parts
from warmstart.training.trainer import build_trainer


class Memory:
    """What a run was trained for: its objective with its own head, and its validation rows.

    Neither model nor data is kept between two measurements, so that a training in between has the memory to itself.

    Args:
        run: a finished pretraining, finetuning or soup.
        config: its config.
        snapshot: one that is meant instead of its final model.

    Raises:
        UserError: its model or its data is no longer what it was.
    """

    def __init__(self, run: RunFolder, config: DictConfig, snapshot: Path | None = None):
        self.run, self.config, self.snapshot = run, config, snapshot
        self.metric, self.before = self.score()

    def score(self, weights: Mapping[str, Tensor] | None = None) -> tuple[str, float | None]:
        """The metric that the run chose its best weights by, with these of a backbone in place of its own.

        Masks and noise are the same every time. What is not finite is None.
        """
        backbone, objective, saved = restore_parts(self.run, self.config, self.snapshot)
        if weights is not None:
            load_weights(backbone, weights, "the finetuned backbone")
        data = components.data_module(self.config, rebuild(saved.preprocessor)).prepare()
        if data.fingerprint != self.run.record["data"]["fingerprint"]:
            raise UserError(
                f"forgetting=true: the data of {self.run.path} has changed since that run (another fingerprint), "
                "so its score cannot be measured again: leave forgetting out"
            )
        module = build_module(self.config, backbone, objective, data.preprocessor)
        trainer = build_trainer(self.config.trainer, self.run.path, None, [])
        value = validate(trainer, module, data)[module.monitor[0]]
        return module.monitor[0], value if math.isfinite(value) else None


def remember(config: DictConfig, parent: dict[str, Any] | None) -> Memory | None:
    """What the run that a finetuning starts from was trained for, measured; None where it is not asked for, or no run.

    Args:
        config: of the finetuning.
        parent: its parent record.

    Raises:
        UserError: it can no longer be measured, or parts of its backbone are to start anew.
    """
    if not config.get("forgetting"):
        return None
    run = None if Init.parse(config.init).shuffled else parent_run(parent)
    if run is None:
        screen.say(f"init={config.init} is not what a run has learned: no forgetting is measured", style="yellow")
        return None
    if config.fresh:
        raise UserError("forgetting=true measures the parent's whole backbone, and fresh lets parts of it start anew")
    folder = Path(parent["path"])
    return Memory(run, run.config(tuple(config.trust)), folder if folder.parent.name == SNAPSHOTS else None)


@contextlib.contextmanager
def forgetting(run: RunFolder, memory: Memory | None, backbone: nn.Module) -> Iterator[None]:
    """Once the block has trained the backbone, measure again what its parent knew, and put it into the run's record.

    The run is done only then; its cost, which the block takes, has no part of this.
    """
    if memory is None:
        yield
        return
    with run.recording():
        yield
        _, after = memory.score(backbone.state_dict())
        found = {"metric": memory.metric, "before": memory.before, "after": after, "parent": memory.run.record["id"]}
        run.note(forgetting=found)
        of = f"{memory.run.record['stage']} {memory.run.record['id']}"
        numbers = [screen.number(math.nan if value is None else value) for value in (memory.before, after)]
        screen.say(f"forgetting: {memory.metric} of {of} was {numbers[0]}, is {numbers[1]}")
