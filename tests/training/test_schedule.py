"""Schedules: initial, maximum and final values."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from warmstart.main import CONF
from warmstart.training.components import build_function
from warmstart.training.schedule import constant, cosine, linear, one_cycle, wsd


@pytest.mark.parametrize("path", sorted((CONF / "scheduler").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_factors_stay_between_0_and_1_and_reach_1(path, total: int):
    schedule = build_function(OmegaConf.load(path))
    factors = [schedule(step, total) for step in range(total + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    if total > 2:
        assert max(factors) == pytest.approx(1, abs=0.01)


def test_ends():
    assert cosine(0, 100, warmup=0.1) == pytest.approx(1 / 11)
    assert cosine(10, 100, warmup=0.1) == pytest.approx(1)
    assert cosine(55, 100, warmup=0.1) == pytest.approx(0.5)
    assert cosine(100, 100, warmup=0.1, final=0.2) == pytest.approx(0.2)
    assert linear(0, 100, warmup=0.1) == pytest.approx(1 / 11)
    assert linear(10, 100, warmup=0.1) == pytest.approx(1)
    assert linear(55, 100, warmup=0.1, final=0.2) == pytest.approx(0.6)
    assert linear(100, 100, warmup=0.1, final=0.2) == pytest.approx(0.2)
    assert one_cycle(0, 100) == pytest.approx(0.04)
    assert one_cycle(30, 100) == pytest.approx(1)
    assert one_cycle(100, 100) == pytest.approx(1e-4)
    assert [constant(step, 10) for step in range(3)] == [1, 1, 1]
    assert constant(0, 10, warmup=0.5) == pytest.approx(1 / 6)


def test_warm_up_stable_decay():
    factors = [wsd(step, 100, warmup=0.1, decay=0.2, final=0.1) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10:81] == [1] * 71
    assert factors[90] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert wsd(100, 100) == pytest.approx(0)
