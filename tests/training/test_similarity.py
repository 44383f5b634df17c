"""Linear CKA on cases with known values."""

from __future__ import annotations

import pytest
import torch

from warmstart.training.visualization.features import linear_cka


def test_rotation_and_scale_change_nothing_and_strangers_are_far():
    a = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    assert linear_cka(a, 3 * a @ rotation + 5) == pytest.approx(1)
    assert linear_cka(a, torch.randn(500, 8, generator=torch.Generator().manual_seed(2))) < 0.1
    assert linear_cka(a, torch.ones(500, 8)) == 0


def test_the_value_by_its_definition():
    a, b = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [3.0], [2.0]])
    correlation = torch.corrcoef(torch.stack([a[:, 0], b[:, 0]]))[0, 1]
    assert linear_cka(a, b) == pytest.approx(float(correlation**2))
