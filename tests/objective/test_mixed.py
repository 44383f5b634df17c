"""The loss of mixed examples is the weighted sum of the losses of both targets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core import protocols
from warmstart.core.batch import Batch, Features
from warmstart.core.protocols import LossFunction
from warmstart.core.spec import Spec
from warmstart.loss.bce import bce
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.loss.focal import focal
from warmstart.objective.classification import Classification
from warmstart.objective.multilabel import MultiLabel

SPEC = Spec("vector", (4,), ("a", "b", "c"))


class AsIs(protocols.Backbone, nn.Module):
    """Features are the inputs; it counts how often it is asked."""

    width, calls = 4, 0

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Features:
        self.calls += 1
        return Features(x[:, None], x)


def numbers() -> tuple[Tensor, Tensor]:
    return torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2, 2, 2, 1, 0])


def flags() -> tuple[Tensor, Tensor]:
    return tuple(F.one_hot(y, 3).float() for y in numbers())


@pytest.mark.parametrize(
    ("objective", "loss", "targets"),
    [
        (Classification, cross_entropy, numbers),
        (Classification, focal, numbers),
        (MultiLabel, bce, flags),
    ],
)
def test_the_loss_is_that_of_both_targets_by_their_shares(objective: type, loss: LossFunction, targets):
    torch.manual_seed(0)
    backbone = AsIs()
    part = objective(backbone, SPEC, loss)
    x, share, (y, partner) = torch.randn(5, 4), torch.tensor([1.0, 0.0, 0.3, 0.5, 0.9]), targets()
    output = part.step(backbone, Batch(x, y, None, partner, share))
    assert backbone.calls == 1
    values, others = (loss(part.head(x), one) for one in (y, partner))
    assert output.loss.item() == pytest.approx((share * values + (1 - share) * others).mean().item())
    assert output.count == 5

    plain = part.step(backbone, Batch(x, y))
    assert torch.equal(part.step(backbone, Batch(x, y, None, partner, torch.ones(5))).loss, plain.loss)


def test_for_cross_entropy_it_is_the_loss_for_mixed_targets():
    torch.manual_seed(0)
    backbone = AsIs()
    part = Classification(backbone, SPEC, cross_entropy)
    x, share, (y, partner) = torch.randn(5, 4), torch.rand(5), numbers()
    targets = share[:, None] * F.one_hot(y, 3) + (1 - share[:, None]) * F.one_hot(partner, 3)
    mixed = part.step(backbone, Batch(x, y, None, partner, share)).loss
    torch.testing.assert_close(mixed, cross_entropy(part.head(x), targets).mean())
