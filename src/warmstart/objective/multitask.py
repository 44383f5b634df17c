"""Multi-task classification: a shared backbone with one head per task; each example belongs to one task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import NonNegativeFloat
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.head import make_head, mixed_loss


class TaskAccuracy(Metric):
    """Accuracy of a task among its own classes, or the unweighted mean over tasks.

    Args:
        owner: index of the task of each class (C,).
        task: index of the task; None for the mean over tasks that have examples.
    """

    def __init__(self, owner: Tensor, task: int | None = None):
        super().__init__()
        self.task, self.tasks = task, int(owner.max()) + 1
        self.register_buffer("owner", owner.clone(), persistent=False)
        self.add_state("right", torch.zeros(self.tasks), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(self.tasks), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add logits (B, C) and class indices (B,)."""
        right = mask_other_tasks(outputs, y, self.owner).argmax(-1) == y
        task = self.owner[y]
        self.right.index_add_(0, task, right.to(self.right.dtype))
        self.count.index_add_(0, task, torch.ones_like(task, dtype=self.count.dtype))

    def compute(self) -> Tensor:
        """Return the accuracy; 0 for a task without examples."""
        shares = self.right / self.count.clamp(min=1)
        return shares[self.count > 0].mean() if self.task is None else shares[self.task]


class MultiTask(Objective, nn.Module):
    """A linear head per task on the pooled features; an example trains the backbone and the head of its task.

    The task is the prefix of a label, as in `digits/7`. The loss of an example is multiplied by the weight of its task;
    weights are scaled to a mean of 1.

    Args:
        loss: loss of an example among the classes of its task.
        weights: weight by task; 1 by default.

    Raises:
        UserError: there are fewer than two tasks, a weight is for an unknown task, or a weight is invalid.
    """

    target: ClassVar = "category"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "sequence_classification"
    mixes: ClassVar = True
    monitor: ClassVar = ("val/accuracy", "max")
    bounds: ClassVar = (0.0, 1.0)

    def __init__(
        self, backbone: Backbone, spec: Spec, loss: LossFunction, weights: dict[str, NonNegativeFloat] | None = None
    ):
        super().__init__()
        names = [label.partition("/")[0] for label in spec.labels]
        self.tasks = tuple(dict.fromkeys(names))
        if len(self.tasks) < 2 or not all("/" in label for label in spec.labels):
            raise UserError("objective=multitask needs several data sets, such as data=[a,b]")
        self.loss = loss
        self.columns = [slice(names.index(task), names.index(task) + names.count(task)) for task in self.tasks]
        self.weights = normalize_weights(weights or {}, self.tasks)
        self.register_buffer("owner", torch.tensor([self.tasks.index(name) for name in names]), persistent=False)
        self.head = make_head(backbone, self.task, spec.outputs)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the concatenated logits of all tasks (B, C)."""
        return self.head(backbone(batch.x, batch.mask).pooled)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean weighted loss over examples and logits (B, C), with -inf for other tasks."""
        outputs = self.predict(backbone, batch)
        values = mixed_loss(self.values, outputs, batch)
        return StepOutput(values.mean(), values.numel(), mask_other_tasks(outputs, batch.y, self.owner))

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the weighted loss of each example (B,)."""
        task, values = self.owner[y], outputs.new_zeros(len(y))
        for number, (columns, weight) in enumerate(zip(self.columns, self.weights)):
            local = (y - columns.start).clamp(0, columns.stop - columns.start - 1)
            values = torch.where(task == number, weight * self.loss(outputs[:, columns], local), values)
        return values

    def metrics(self) -> dict[str, Any]:
        """Return the accuracy of each task and their unweighted mean."""
        own = {f"accuracy_{name}": TaskAccuracy(self.owner, number) for number, name in enumerate(self.tasks)}
        return {"accuracy": TaskAccuracy(self.owner), **own}

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """Return None: a mean over tasks is not a mean over examples."""

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per example: the most likely label of each task and its probability."""
        records: list[dict[str, Any]] = [{} for _ in outputs]
        for name, columns in zip(self.tasks, self.columns):
            labels = [label.partition("/")[2] for label in spec.labels[columns]]
            for record, p in zip(records, outputs[:, columns].float().softmax(-1).tolist()):
                best = p.index(max(p))
                record[name] = {"label": labels[best], "probability": round(p[best], 6)}
        return [{"tasks": record} for record in records]

    def export(self, folder: Path) -> None:
        """Raise UserError: no class of transformers has several heads."""
        raise UserError(
            f"transformers has no class with a head for each of {', '.join(self.tasks)}: the model was not exported"
        )


def mask_other_tasks(outputs: Tensor, y: Tensor, owner: Tensor) -> Tensor:
    """Set logits (B, C) to -inf for classes of other tasks than that of the target (B,)."""
    return outputs.masked_fill(owner != owner[y][:, None], -math.inf)


def normalize_weights(weights: dict[str, float], tasks: tuple[str, ...]) -> list[float]:
    """Return the weight of each task, scaled to a mean of 1.

    Raises:
        UserError: a weight is for an unknown task, or all are 0.
    """
    for name in weights:
        if name not in tasks:
            raise UserError(f"objective.weights.{name}: there is no such task; tasks are {', '.join(tasks)}")
    found = [float(weights.get(task, 1.0)) for task in tasks]
    if not any(found):
        raise UserError("objective.weights: all are 0, but one at least must be above 0")
    return [weight * len(found) / sum(found) for weight in found]
