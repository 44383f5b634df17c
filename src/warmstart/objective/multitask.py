"""One class per example, which is one of several tasks: a shared backbone, and a head for each task."""

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
from warmstart.core.ranges import Amount
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.head import make_head
from warmstart.objective.mixed import mixed_loss


class TaskAccuracy(Metric):
    """The share of a task's examples that are right among its own classes, or the plain mean over all tasks.

    Args:
        owner: the number of each class's task (C,).
        task: the number of the task; None for the mean over those that have examples.
    """

    def __init__(self, owner: Tensor, task: int | None = None):
        super().__init__()
        self.task, self.tasks = task, int(owner.max()) + 1
        self.register_buffer("owner", owner.clone(), persistent=False)
        self.add_state("right", torch.zeros(self.tasks), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(self.tasks), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count logits (B, C) and class numbers (B,)."""
        right = own_logits(outputs, y, self.owner).argmax(-1) == y
        task = self.owner[y]
        self.right.index_add_(0, task, right.to(self.right.dtype))
        self.count.index_add_(0, task, torch.ones_like(task, dtype=self.count.dtype))

    def compute(self) -> Tensor:
        """From 0 to 1; 0 for a task without examples."""
        shares = self.right / self.count.clamp(min=1)
        return shares[self.count > 0].mean() if self.task is None else shares[self.task]


class MultiTask(Objective, nn.Module):
    """A linear head on the pooled features for each task; an example trains the backbone and the head of its own.

    Tasks are what labels are named after, as in `digits/7`. Each example's loss is multiplied by the weight of its
    task, the mean of the weights over tasks being made 1.

    Args:
        backbone: shared.
        spec: of several data sets.
        loss: of each example, among the classes of its task.
        weights: by task; 1 where there is none.

    Raises:
        UserError: the labels are of fewer than two tasks, or the weights are not of these or not usable.
    """

    target: ClassVar = "category"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "sequence_classification"
    mixes: ClassVar = True
    monitor: ClassVar = ("val/accuracy", "max")

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, weights: dict[str, Amount] | None = None):
        super().__init__()
        names = [label.partition("/")[0] for label in spec.labels]
        self.tasks = tuple(dict.fromkeys(names))
        if len(self.tasks) < 2 or not all("/" in label for label in spec.labels):
            raise UserError("objective=multitask is for several data sets, such as data=[a,b]")
        self.loss = loss
        self.places = [slice(names.index(task), names.index(task) + names.count(task)) for task in self.tasks]
        self.weights = balanced(weights or {}, self.tasks)
        self.register_buffer("owner", torch.tensor([self.tasks.index(name) for name in names]), persistent=False)
        self.head = make_head(backbone, self.task, spec.outputs)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Logits (B, C) of all tasks, side by side."""
        return self.head(backbone(batch.x, batch.mask).pooled)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Logits (B, C), those of other tasks minus infinity, and one weighted loss value per example."""
        outputs = self.predict(backbone, batch)
        values = mixed_loss(self.values, outputs, batch)
        return StepOutput(values.mean(), values.numel(), own_logits(outputs, batch.y, self.owner))

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Each example's weighted loss (B,): every task's is computed for all, and its own is taken."""
        task, values = self.owner[y], outputs.new_zeros(len(y))
        for number, (place, weight) in enumerate(zip(self.places, self.weights)):
            local = (y - place.start).clamp(0, place.stop - place.start - 1)
            values = torch.where(task == number, weight * self.loss(outputs[:, place], local), values)
        return values

    def metrics(self) -> dict[str, Any]:
        """Accuracy of each task, and the plain mean of these."""
        own = {f"accuracy_{name}": TaskAccuracy(self.owner, number) for number, name in enumerate(self.tasks)}
        return {"accuracy": TaskAccuracy(self.owner), **own}

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """None: a mean over tasks is no mean over examples."""

    def answer(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per example: for each task its most likely label, and how likely."""
        answers: list[dict[str, Any]] = [{} for _ in outputs]
        for name, place in zip(self.tasks, self.places):
            labels = [label.partition("/")[2] for label in spec.labels[place]]
            for answer, p in zip(answers, outputs[:, place].float().softmax(-1).tolist()):
                best = p.index(max(p))
                answer[name] = {"label": labels[best], "probability": round(p[best], 6)}
        return [{"tasks": answer} for answer in answers]

    def export(self, folder: Path) -> None:
        """Refuse: no class of transformers has several heads."""
        raise UserError(f"transformers has no class with a head for each of {', '.join(self.tasks)}: not exported")


def own_logits(outputs: Tensor, y: Tensor, owner: Tensor) -> Tensor:
    """Logits (B, C), minus infinity for classes that are not of the task (C,) of the example's class (B,)."""
    return outputs.masked_fill(owner != owner[y][:, None], -math.inf)


def balanced(weights: dict[str, float], tasks: tuple[str, ...]) -> list[float]:
    """The weight of each task, 1 on average.

    Raises:
        UserError: a weight is of no task, or all are 0.
    """
    for name in weights:
        if name not in tasks:
            raise UserError(f"objective.weights.{name}: there is no such task; tasks are {', '.join(tasks)}")
    found = [float(weights.get(task, 1.0)) for task in tasks]
    if not any(found):
        raise UserError("objective.weights: all are 0, so nothing would train")
    return [weight * len(found) / sum(found) for weight in found]
