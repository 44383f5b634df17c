"""Distillation: whose head may be loaded, and targets under reduced precision."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from warmstart.core.batch import Batch
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse
from warmstart.objective.distill import Distill
from warmstart.training.trainer import keep_targets

pytestmark = pytest.mark.quick


class Identity(nn.Module):
    width = 2

    def forward(self, x, mask=None) -> SimpleNamespace:
        return SimpleNamespace(pooled=x)


def objective(center: tuple[float, ...]) -> Distill:
    return Distill(Identity(), Spec("vector", (2,), (), center, (0.01, 1.0)), mse, cosine=False)


def test_a_head_is_loaded_only_if_the_targets_are_standardized_alike():
    student, other = objective((0.0, 1.0)), objective((5.0, 1.0))
    assert student.load_head(objective((0.0, 1.0)).state_dict(), ())
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert not student.load_head(other.state_dict(), ())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_with_bfloat16_targets_are_standardized_before_they_are_rounded():
    """Of a feature with mean 30 and standard deviation 0.01, bfloat16 keeps nothing."""
    precision = SimpleNamespace(convert_input=lambda batch: Batch(batch.x.bfloat16(), batch.y.bfloat16()))
    keep_targets(precision)
    y = torch.tensor([[30.0, 0.0], [30.03, 0.0]], dtype=torch.float16)
    batch = precision.convert_input(Batch(torch.zeros(2, 2), y))
    student = objective((30.0, 0.0)).bfloat16()
    with torch.no_grad():
        student.head.bias.zero_()
        loss = student.step(Identity(), batch).loss
    assert loss == pytest.approx(((y[1, 0].item() - 30) / 0.01) ** 2 / 4, rel=0.01)
