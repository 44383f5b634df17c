"""A stacked model applies to each row the operations of the single model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from warmstart.core import protocols
from warmstart.core.batch import Batch, Features
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.classification import Classification
from warmstart.training.optimization import configure
from warmstart.vmap.eligibility import ELEMENTWISE
from warmstart.vmap.stack import Stack, StackOptimizer

CPU = torch.device("cpu")
SETTINGS = ((0.01, 0.0), (0.01, 0.0), (0.03, 0.1))  # learning rate and weight decay of each job, sorted
STEPS = 4


class Backbone(protocols.Backbone, nn.Module):
    """One layer, and a parameter that no step uses."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.unused = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Features:
        x = self.layer(x).tanh()
        return Features(x[:, None], x)


class Module(nn.Module):
    """As much of a module as a stack needs."""

    def __init__(self, optimizer: functools.partial, frozen: bool):
        super().__init__()
        self.backbone = Backbone()
        self.objective = Classification(self.backbone, Spec("vector", (3,), ("a", "b")), cross_entropy)
        self.optimizer = optimizer
        self.scales = {name: float(not (frozen and "backbone" in name)) for name, _ in self.named_parameters()}

    @staticmethod
    def scheduler(step: int, total: int) -> float:
        return 1 - step / total


@dataclass
class Jobs:
    """The same modules twice, and a batch for each."""

    alone: list[Module]
    together: list[Module]
    x: Tensor
    y: Tensor


def make(optimizer: str, frozen: bool = False) -> Jobs:
    torch.manual_seed(0)
    built = getattr(torch.optim, optimizer)
    names: dict[str, Any] = {"weight_decay": 0} if optimizer != "Rprop" else {}
    jobs = []
    for rate, decay in SETTINGS:
        jobs.append(Module(functools.partial(built, lr=rate, **dict.fromkeys(names, decay)), frozen))
    twins = [Module(job.optimizer, frozen) for job in jobs]
    for job, twin in zip(jobs, twins):
        twin.load_state_dict(job.state_dict())
    return Jobs(jobs, twins, torch.randn(STEPS, len(jobs), 5, 3), torch.randint(0, 2, (STEPS, len(jobs), 5)))


def train_alone(jobs: Jobs) -> None:
    for row, module in enumerate(jobs.alone):
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(module.scales[name] > 0)
        made = configure(module, module.scales, module.optimizer, module.scheduler, STEPS)
        for x, y in zip(jobs.x[:, row], jobs.y[:, row]):
            made["optimizer"].zero_grad()
            module.objective.step(module.backbone, Batch(x, y)).loss.backward()
            made["optimizer"].step()
            made["lr_scheduler"]["scheduler"].step()


def train_stack(jobs: Jobs) -> Stack:
    stack = Stack(jobs.together, CPU)
    optimizer = StackOptimizer(stack, jobs.together, STEPS)
    for x, y in zip(jobs.x, jobs.y):
        stack(x, y).loss.sum().backward()
        optimizer.step()
    return stack


def assert_equal(jobs: Jobs) -> None:
    for alone, together in zip(jobs.alone, jobs.together):
        for (name, a), (_, b) in zip(alone.named_parameters(), together.named_parameters()):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_every_elementwise_optimizer_steps_each_row_as_alone(name: str):
    jobs = make(name)
    train_alone(jobs)
    stack = train_stack(jobs)
    stack.keep([0, 1, 2])
    stack.restore()
    assert_equal(jobs)


def test_frozen_parameters_have_no_gradient_and_stay():
    jobs = make("AdamW", frozen=True)
    train_alone(jobs)
    stack = train_stack(jobs)
    assert not stack.values["backbone.layer.weight"].requires_grad
    assert set(stack.best) == {"objective.head.weight", "objective.head.bias"}
    stack.keep([0, 1, 2])
    stack.restore()
    assert_equal(jobs)


def test_only_the_rows_that_are_kept_are_restored():
    jobs = make("SGD")
    before = [job.backbone.layer.weight.clone() for job in jobs.together]
    stack = train_stack(jobs)
    after = stack.values["backbone.layer.weight"][1].clone()
    stack.keep([1])
    stack.restore()
    assert torch.equal(jobs.together[0].backbone.layer.weight, before[0])
    assert torch.equal(jobs.together[1].backbone.layer.weight, after)


def test_neighbours_with_equal_settings_share_a_slice_and_every_job_knows_its_rate():
    jobs = make("SGD")
    optimizer = StackOptimizer(Stack(jobs.together, CPU), jobs.together, STEPS)
    assert optimizer.sizes == [2, 1]
    assert optimizer.rates() == [0.01, 0.01, 0.03]


def test_a_batch_can_be_shared_and_a_row_that_is_not_a_number_stays_alone():
    jobs = make("SGD")
    with torch.no_grad():
        jobs.together[1].backbone.layer.weight.fill_(float("nan"))
    stack = Stack(jobs.together, CPU)
    output = stack(jobs.x[0, 0], jobs.y[0, 0], x_dim=None, y_dim=None)
    assert output.outputs.shape == (3, 5, 2)
    assert output.count == 5
    assert output.loss.isfinite().tolist() == [True, False, True]
    output.loss.sum().backward()
    gradient = stack.values["backbone.layer.weight"].grad
    assert gradient.isfinite().flatten(1).all(1).tolist() == [True, False, True]
