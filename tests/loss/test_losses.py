"""Every loss in conf/loss: known values, finite, differentiable, one value per example."""

from __future__ import annotations

import math

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from warmstart.loss.bce import bce
from warmstart.loss.brier import brier
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.loss.focal import focal
from warmstart.loss.huber import huber
from warmstart.loss.l1 import l1
from warmstart.loss.mse import mse
from warmstart.main import CONF

pytestmark = pytest.mark.quick

LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))


def example(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    outputs = torch.randn(5, *([4, 3] if kind == "sequence" else [3]), dtype=torch.float64)
    targets = {
        "category": torch.tensor([0, 1, 2, 1, 0]),
        "categories": torch.randint(0, 2, (5, 3)).double(),
        "value": torch.randn(5, 3, dtype=torch.float64),
        "sequence": torch.tensor([[0, 1], [1, -1], [0, 0], [1, 0], [-1, -1]]),
    }
    return outputs, targets[kind]


def examples(name: str) -> list[tuple]:
    """The loss of a yaml, and outputs and targets of every kind that it takes."""
    node = OmegaConf.load(CONF / "loss" / f"{name}.yaml")
    loss = instantiate(node, _partial_=True)
    return [(loss, *example(kind)) for kind in get_object(node._target_).accepts]


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gives_one_finite_value_per_example_with_the_right_gradient(name: str):
    for loss, outputs, targets in examples(name):
        values = loss(outputs, targets)
        assert values.shape == (5,)
        assert torch.isfinite(values).all()
        torch.autograd.gradcheck(lambda x, f=loss, t=targets: f(x, t), outputs.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_an_example_has_no_say_in_the_loss_of_another(name: str):
    for loss, outputs, targets in examples(name):
        outputs.requires_grad_()
        loss(outputs, targets)[0].backward()
        assert outputs.grad[0].abs().sum() > 0
        assert outputs.grad[1:].abs().sum() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_loss_stays_finite_on_extreme_outputs(name: str):
    for loss, outputs, targets in examples(name):
        assert torch.isfinite(loss(outputs.float() * 1e4, targets)).all()


def test_values_by_hand():
    x, y = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]])
    assert mse(x, y).item() == pytest.approx(5.0)
    assert l1(x, y).item() == pytest.approx(2.0)
    assert huber(x, y, delta=1.0).item() == pytest.approx((0.5 + 2.5) / 2)
    logits, label = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([1])
    assert cross_entropy(logits, label).item() == pytest.approx(-math.log(0.75))
    assert cross_entropy(logits, label, label_smoothing=0.2).item() == pytest.approx(
        -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    )
    assert focal(logits, label, gamma=2.0).item() == pytest.approx(-(0.25**2) * math.log(0.75))
    assert focal(logits, label, gamma=0.0).item() == pytest.approx(-math.log(0.75))
    assert brier(logits, label).item() == pytest.approx(0.25**2 + 0.25**2)
    assert bce(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(math.log(2))
