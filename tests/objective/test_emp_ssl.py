"""EMP-SSL: the values of its two terms, and any number of views in a pretraining."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAST
from tests.objective.test_objectives import set_up
from torch.nn import functional as F

from warmstart.core.batch import Batch
from warmstart.objective.emp_ssl import coding_rate


def test_the_coding_rate_is_that_of_the_singular_values():
    torch.manual_seed(0)
    z = F.normalize(torch.randn(2, 6, 4), dim=2)
    expected = [torch.log(1 + torch.linalg.svdvals(one).square() * 4 / (6 * 0.5)).sum() / 2 for one in z]
    assert coding_rate(z, 0.5).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    collapsed = z[:, :1].expand(2, 6, 4)
    assert coding_rate(collapsed, 0.5) < 0.6 * coding_rate(z, 0.5)


def test_the_loss_is_the_distance_to_the_mean_of_the_views_minus_the_rate():
    backbone, objective, batch = set_up("emp_ssl")
    output = objective.step(backbone, batch)
    z = F.normalize(objective.head(backbone(batch.x).pooled), dim=1).chunk(objective.views)
    mean = F.normalize(sum(z), dim=1)
    distance = torch.stack([1 - (one * mean).sum(1) for one in z]).mean()
    assert output.measures["invariance"].item() == pytest.approx(distance.item(), abs=1e-5)
    rate = output.measures["coding_rate"]
    assert output.loss.item() == pytest.approx((200 * distance - rate).item(), rel=1e-3)
    same = objective.step(backbone, Batch(batch.x[:8].repeat(objective.views, 1, 1, 1)))
    assert same.measures["invariance"].item() == pytest.approx(0, abs=1e-5)


def test_the_number_of_views_is_a_setting(cli):
    words = ("stage=pretrain", "objective=emp_ssl", "data/augment=shift", *FAST)
    outcome = cli(*words, "objective.views=3", "debug=one_batch")
    assert outcome.status == 0, outcome.err
    assert {"val/invariance", "val/coding_rate"} <= set(outcome.record("pretrain")["metrics"])
    refused = cli(*words, "objective.views=1")
    assert (refused.status, "objective.views=1: must be a whole number from 2 to 64" in refused.error) == (2, True)
