"""Multi-task heads: loss, accuracy and gradient of an example depend on the classes of its task only."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from warmstart.core import protocols
from warmstart.core.batch import Batch, Features
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.multitask import MultiTask

SPEC = Spec("vector", (4,), ("a/x", "a/y", "a/z", "b/u", "b/v"))
Y = torch.tensor([0, 3, 2, 4, 1, 4])


class Unchanged(protocols.Backbone):
    """Examples are their own features."""

    width = 4

    def __call__(self, x: torch.Tensor, mask: None = None) -> Features:
        return Features(x[:, None], x)


backbone = Unchanged()


def made(loss=cross_entropy, **weights: float) -> MultiTask:
    torch.manual_seed(0)
    return MultiTask(backbone, SPEC, loss, weights)


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), Y)


def test_loss_is_that_of_two_heads_by_hand_also_smoothed_and_weighted(batch: Batch):
    smooth = functools.partial(cross_entropy, label_smoothing=0.2)
    objective = made(smooth, b=3.0)
    logits = objective.predict(backbone, batch)
    of_a, of_b = Y < 3, Y >= 3
    a = F.cross_entropy(logits[of_a, :3], Y[of_a], reduction="sum", label_smoothing=0.2)
    b = F.cross_entropy(logits[of_b, 3:], Y[of_b] - 3, reduction="sum", label_smoothing=0.2)
    assert objective.step(backbone, batch).loss.item() == pytest.approx(((0.5 * a + 1.5 * b) / 6).item(), rel=1e-5)


def test_only_the_ratio_of_weights_counts_and_a_task_without_weight_trains_nothing(batch: Batch):
    plain, twice = (made(**weights).step(backbone, batch).loss for weights in ({}, {"a": 2.0, "b": 2.0}))
    assert plain.item() == pytest.approx(twice.item())
    objective = made(b=0.0)
    objective.step(backbone, batch).loss.backward()
    assert objective.head.weight.grad[:3].abs().sum() > 0
    assert not objective.head.weight.grad[3:].any()


def test_mixed_examples_of_two_tasks_count_for_both(batch: Batch):
    objective = made()
    partner, share = Y.flip(0), torch.full((6,), 0.7)
    mixed = objective.step(backbone, Batch(batch.x, Y, partner=partner, share=share)).loss
    own, other = (objective.step(backbone, Batch(batch.x, y)).loss for y in (Y, partner))
    assert mixed.item() == pytest.approx((0.7 * own + 0.3 * other).item(), rel=1e-5)


def test_accuracy_is_among_the_classes_of_the_task_and_its_mean_is_over_tasks():
    objective = made()
    outputs = torch.tensor([[1.0, 0, 0, 9, 9], [9, 9, 9, 1, 0], [1, 0, 0, 9, 9], [9, 9, 9, 1, 0]])
    y = torch.tensor([0, 3, 1, 3])  # right, right, wrong, right
    metrics = objective.metrics()
    for metric in metrics.values():
        metric.update(outputs[:3], y[:3])
        metric.update(outputs[3:], y[3:])
    found = {name: metric.compute().item() for name, metric in metrics.items()}
    assert found == {"accuracy": 0.75, "accuracy_a": 0.5, "accuracy_b": 1.0}
    only = objective.metrics()["accuracy"]
    only.update(outputs[:1], y[:1])
    assert only.compute() == 1


def test_answers_are_of_every_task_with_probabilities_of_its_own(batch: Batch):
    objective = made()
    outputs = torch.tensor([[0.0, 2, 0, 5, 5]])
    (answer,) = objective.to_records(outputs, batch, SPEC)
    assert answer["tasks"]["a"]["label"] == "y"
    assert answer["tasks"]["a"]["probability"] == pytest.approx(
        torch.tensor([0.0, 2, 0]).softmax(0)[1].item(), abs=1e-6
    )
    assert answer["tasks"]["b"] == {"label": "u", "probability": 0.5}


def test_nothing_but_the_head_is_saved():
    assert set(made().state_dict()) == {"head.weight", "head.bias"}


def test_no_class_of_transformers_has_several_heads(tmp_path: Path):
    with pytest.raises(UserError, match="a head for each of a, b"):
        made().export(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "weights", "part"),
    [
        (("x", "y"), {}, "several data sets"),
        (("a/x", "a/y"), {}, "several data sets"),
        (SPEC.labels, {"c": 1.0}, "weights.c"),
        (SPEC.labels, {"a": 0.0, "b": 0.0}, "all are 0"),
    ],
)
def test_labels_and_weights_that_make_no_tasks_are_refused(labels: tuple, weights: dict, part: str):
    with pytest.raises(UserError, match=part):
        MultiTask(backbone, Spec("vector", (4,), labels), cross_entropy, weights)
