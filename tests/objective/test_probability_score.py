"""Logits in [0, 1] are treated as logits: calibration and decisions use softmax or sigmoid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from tests.objective.test_objectives import set_up

from warmstart.core.spec import Spec


def unit_logits(rows: int, outputs: int) -> torch.Tensor:
    return torch.rand(rows, outputs, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_calibration_error_by_hand(shift: float):
    _, objective, _ = set_up("classification")
    logits, y = unit_logits(200, 3) + shift, torch.arange(200) % 3
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    sure, right = p.max(1), p.argmax(1) == y.numpy()
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = [(bins == b).mean() * abs(right[bins == b].mean() - sure[bins == b].mean()) for b in set(bins)]
    metric = objective.metrics()["calibration_error"]
    for part in (slice(0, 70), slice(70, 200)):
        metric.update(logits[part], y[part])
    assert float(metric.compute()) == pytest.approx(sum(gaps), rel=1e-4)


def test_several_labels_are_decided_as_they_are_answered():
    _, objective, batch = set_up("multilabel")
    logits = torch.cat([unit_logits(50, 3), torch.zeros(1, 3), -unit_logits(50, 3)])
    y = (unit_logits(101, 3).flip(0) > 0.4).float()
    spec = Spec("image", (1, 8, 8), ("a", "b", "c"))
    answers = objective.to_records(logits, batch, spec)
    decided = np.array([[label in answer["labels"] for label in spec.labels] for answer in answers]).astype(int)
    assert decided[:51].all()
    assert not decided[51:].any()
    found = {}
    for name, metric in objective.metrics().items():
        metric.update(logits[:50], y[:50])  # all of them within [0, 1]
        metric.update(logits[50:], y[50:])
        found[name] = float(metric.compute())
    assert found["accuracy"] == pytest.approx(accuracy_score(y.numpy().ravel(), decided.ravel()), rel=1e-6)
    assert found["f1"] == pytest.approx(f1_score(y.numpy(), decided, average="macro"), rel=1e-6)


@pytest.mark.parametrize("name", ["classification", "multitask"])
def test_a_constant_that_a_softmax_does_not_notice_changes_no_metric(name: str):
    _, objective, batch = set_up(name)
    logits, found = unit_logits(8, 3), []
    for shift in (0.0, -5.0):
        metrics = objective.metrics()
        for metric in metrics.values():
            metric.update(logits + shift, batch.y)
        found.append({name: float(metric.compute()) for name, metric in metrics.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
