"""VICReg: the values of its three terms, and recovery from collapsed features."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAST
from tests.objective.test_objectives import set_up

from warmstart.core.batch import Batch
from warmstart.objective.vicreg import regularizers


def test_spread_by_hand():
    torch.manual_seed(0)
    z = torch.randn(50, 4) * torch.tensor([0.2, 0.5, 1.0, 3.0])
    short, shared = regularizers(z)
    assert short.item() == pytest.approx((1 - z.std(0)).clamp(min=0).mean().item(), abs=1e-3)
    covariances = torch.cov(z.T)
    covariances.fill_diagonal_(0)
    assert shared.item() == pytest.approx((covariances**2).sum().item() / 4, rel=1e-4)
    short, shared = regularizers(torch.ones(50, 4))
    assert (short.item(), shared.item()) == (pytest.approx(0.99), 0.0)
    assert all(torch.isfinite(value) for value in regularizers(torch.randn(1, 4)))


def test_the_loss_is_the_weighted_sum_of_the_terms():
    backbone, objective, batch = set_up("vicreg")
    output = objective.step(backbone, batch)
    terms = output.measures
    expected = 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    same = Batch(torch.cat([batch.x[:8]] * 2))
    assert objective.step(backbone, same).measures["invariance"].item() == pytest.approx(0, abs=1e-6)


def test_the_variance_term_spreads_features():
    deviations = []
    for weight in (25.0, 0.0):
        backbone, objective, batch = set_up("vicreg")
        objective.variance = weight
        optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=1e-3)
        for _ in range(60):
            optimizer.zero_grad()
            objective.step(backbone, batch).loss.backward()
            optimizer.step()
        deviations.append(objective.head(backbone(batch.x).pooled).std(0).mean().item())
    assert deviations[0] > 2 * deviations[1]


def test_terms_are_logged_and_bad_weights_refused(cli):
    outcome = cli("stage=pretrain", "objective=vicreg", "data/augment=shift", *FAST)
    assert outcome.status == 0, outcome.err
    assert {"val/invariance", "val/variance", "val/covariance"} <= set(outcome.record("pretrain")["metrics"])
    refused = cli("stage=pretrain", "objective=vicreg", "data/augment=shift", "objective.covariance=-1", *FAST)
    assert refused.status == 2
    assert "covariance=-1" in refused.error
