"""Initial weights without training: pooled features, and outputs of their own head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Backbone
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import MemoryDataModule
from warmstart.data.loader import GatherLoader
from warmstart.data.transforms.augment import Augment
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import TUNED
from warmstart.training import components
from warmstart.training.evaluation import evaluating
from warmstart.training.start import build_objective, listed, load_head, load_start, shuffled
from warmstart.training.visualization.features import pooled


class Frozen(nn.Module):
    """A backbone that is not trained, and an objective with its head if `outputs` are needed."""

    def __init__(self, backbone: Backbone, objective: nn.Module | None, data: MemoryDataModule):
        super().__init__()
        self.backbone, self.objective, self.augment = backbone, objective, Augment(data.preprocessor)
        self.batch_size = data.held_out_batch

    def features(self, x: Any) -> np.ndarray:
        """Return the pooled features of encoded rows (N, D)."""
        return self._map(x, lambda batch: pooled(self, batch))

    def outputs(self, x: Any) -> np.ndarray:
        """Return the outputs of the head for encoded rows (N, C)."""

        def predict(batch: Batch) -> torch.Tensor:
            return self.objective.predict(self.backbone, Batch(self.augment.scale(batch.x), mask=batch.mask)).cpu()

        return self._map(x, predict)

    def _map(self, x: Any, function: Any) -> np.ndarray:
        device = next(self.parameters()).device
        with evaluating(self):
            found = [function(batch.to(device)) for batch in GatherLoader(x, None, self.batch_size)]
        return torch.cat(found).numpy()


def load_frozen(config: DictConfig, start: SavedModel | None, data: MemoryDataModule, has_head: bool) -> Frozen:
    """Return the model with the initial weights `start`, or with random weights if it is None.

    Args:
        config: config of a baseline with `init` and `trainer`.
        data: prepared data.
        has_head: whether to load the head too.

    Raises:
        UserError: the head is not for the labels of the data.
    """
    backbone = components.build_seeded(config.backbone, config.seed, "backbone", spec=data.spec)
    if start is not None:
        if Init.parse(config.init).shuffled:
            start = shuffled(start, derive_seed(config.seed, "shuffle"))
        load_start(backbone, start)
    objective = None
    if has_head:
        objective = build_objective(config, backbone, data)
        reason = without_head(start, objective.task, data.spec.labels)
        if reason is None and load_head(objective, start, data.spec.labels) != "loaded":
            reason = f"the head of {start.name} has another form"
        if reason is not None:
            raise UserError(f"init={config.init}: {reason}")
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return Frozen(backbone, objective, data).to("cpu" if on_cpu else "cuda")


def without_head(start: SavedModel | None, task: str, labels: tuple[str, ...]) -> str | None:
    """Return why initial weights have no head for a task and these labels; None if they have one."""
    if start is None:
        return "random weights have no trained head"
    if start.card["stage"] not in TUNED and start.card.get("task") is None:
        return f"{start.name} has no head of a task"
    if start.card.get("task", task) != task or not start.head:
        return f"the head of {start.name} is for another task"
    if start.spec.labels != labels:
        return f"the head of {start.name} is for other labels ({listed(start.spec.labels)}; here {listed(labels)})"
    return None
