"""Mixup and CutMix: mixing weights match the content, are drawn per example and are reproducible."""

from __future__ import annotations

import pytest
import torch

from warmstart.core import protocols
from warmstart.core.batch import Batch
from warmstart.data.transforms.augment import Augment
from warmstart.data.transforms.mixing import CutMix, Mixup

pytestmark = pytest.mark.quick

ROWS = 2000


def mixed(batch: Batch, **alphas: float) -> Batch:
    torch.manual_seed(0)
    ways = {"mixup": Mixup, "cutmix": CutMix}
    transforms = {name: ways[name](alpha) for name, alpha in alphas.items()}
    return Augment(protocols.Preprocessor(), transforms).mixed(batch)


def numbered(*shape: int) -> Batch:
    """Each example is full of its own number, which is its target too."""
    y = torch.arange(ROWS)
    return Batch(y.double().view(-1, *[1] * len(shape)).expand(-1, *shape).contiguous(), y)


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_an_image_holds_as_much_of_each_as_its_share_says(settings: dict[str, float]):
    batch = numbered(3, 9, 12)
    before = batch.x.clone()
    one = mixed(batch, **settings)
    assert torch.equal(batch.x, before)
    assert torch.equal(one.y, batch.y)
    assert torch.equal(one.partner.sort().values, batch.y)
    expected = one.share * one.y + (1 - one.share) * one.partner
    torch.testing.assert_close(one.x.mean((1, 2, 3)), expected.double(), atol=0.01, rtol=0)
    assert len(one.share.unique()) > 20
    assert torch.equal(one.x, mixed(batch, **settings).x)


def test_cutmix_puts_one_rectangle_of_the_partner_into_the_image():
    one = mixed(numbered(1, 9, 12), cutmix=1.0)
    own, other = (one.x[:, 0] == y.view(-1, 1, 1) for y in (one.y, one.partner))
    assert (own | other).all()
    rows, columns = other.any(2), other.any(1)
    assert torch.equal(other, rows[:, :, None] & columns[:, None, :])
    assert other.any(0).all()


def test_mixup_draws_shares_from_the_beta_distribution():
    share = mixed(numbered(4), mixup=0.2).share
    assert float(share.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(share.var()) == pytest.approx(1 / (4 * 1.4), rel=0.1)


def test_each_image_is_mixed_in_one_of_the_two_ways():
    one = mixed(numbered(1, 9, 12), mixup=1.0, cutmix=1.0)
    is_even = (one.x == one.x[:, :, :1, :1]).flatten(1).all(1)
    assert 0.45 < float(is_even.float().mean()) < 0.65


def test_nothing_asked_nothing_mixed():
    batch = numbered(1, 2, 2)
    assert mixed(batch) is batch
    assert batch.share is None


def test_whole_numbers_are_numbers_too():
    batch = Batch(torch.rand(4, 3, 8, 8), torch.arange(4))
    assert mixed(batch, mixup=1, cutmix=1).x.shape == batch.x.shape
