"""Alpha spending over looks: boundaries, repeated p values and intervals, and when a transfer stops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from scripts.calibrate import TRUTHS
from scripts.calibrate_looks import measure

from warmstart.report.looks import Looks, nominal_levels, overall_level
from warmstart.report.transfer import write_report

pytestmark = pytest.mark.quick

FIVE = (5, 10, 15, 20, 25)
AUTO = {"seeds": "auto", "looks": [5, 10]}


def test_boundaries_are_those_published_for_five_looks():
    # Lan-DeMets, O'Brien-Fleming type, five equally spaced looks, one-sided 0.025
    bounds = [-special.ndtri(level) for level in nominal_levels(0.025, FIVE)]
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3)


def test_the_probability_of_crossing_any_boundary_is_the_level():
    times = np.array(FIVE) / FIVE[-1]
    covariance = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    bounds = [-special.ndtri(level) for level in nominal_levels(0.1, FIVE)]
    inside = stats.multivariate_normal(np.zeros(5), covariance, seed=0).cdf(bounds)
    assert 1 - inside == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("look", [1, 2, 5])
@pytest.mark.parametrize("level", [1e-20, 1e-9, 0.0013, 0.025, 0.3])
def test_a_repeated_p_value_inverts_the_boundary(look: int, level: float):
    nominal = nominal_levels(level, FIVE)[look - 1]
    assert overall_level(nominal, FIVE, look) == pytest.approx(level, rel=1e-3)


def test_one_look_is_the_plain_test_and_extreme_p_values_have_a_value():
    assert Looks((10,), 1).alpha == 0.05
    assert Looks((10,), 1).p(0.3) == 0.3
    for made in (1, 5):
        looks = Looks(FIVE, made)
        assert looks.p(0.0) == 0.0
        assert looks.p(1.0) == 1.0
        assert 0.01 <= looks.p(0.01) <= 1
    assert Looks(FIVE, 1).alpha < Looks(FIVE, 2).alpha < Looks(FIVE, 5).alpha < 0.05


def scores(seeds: int, gain: float, noise: float = 0.002) -> dict:
    rng = np.random.default_rng(0)
    easy = rng.random((1, 400)) < 0.6
    control = np.clip(easy + noise * rng.standard_normal((seeds, 400)), 0, 1)
    lift = gain + noise * rng.standard_normal((seeds, 1))
    return {("pretrained", "steps", 5): control + lift, ("scratch", "steps", 5): control}


@pytest.mark.parametrize(
    ("seeds", "gain", "noise", "verdict", "reason"),
    [
        (5, 0.3, 0.001, "helps", "every verdict is settled"),
        (5, 0.0, 0.05, "cannot tell", None),
        (10, 0.0, 0.05, "cannot tell", "the maximum of 10 seeds is reached"),
    ],
)
def test_a_report_says_how_many_looks_were_made_and_why_it_stopped(seeds, gain, noise, verdict, reason, made):
    report = write_report(made(scores(seeds, gain, noise), rules=AUTO))
    (row,) = report["verdicts"]
    assert row["verdict"] == verdict
    looks = report["looks"]
    assert (looks["planned"], looks["made"], looks["reason"]) == ([5, 10], seeds // 5, reason)
    assert f"{seeds // 5} of 2 looks made, with {seeds} seeds" in looks["sentence"]
    assert report["rules"]["looks"] == [5, 10]


def test_the_first_look_has_wider_intervals_and_larger_p_values_than_a_fixed_number_of_seeds(made):
    both = scores(5, 0.02, 0.01)
    (fixed,), (look,) = (write_report(made(both, rules=rules))["verdicts"] for rules in ({}, AUTO))
    assert look["difference"] == fixed["difference"]
    assert look["interval"][0] < fixed["interval"][0] < fixed["interval"][1] < look["interval"][1]
    assert look["p"] > fixed["p"]


def test_the_looks_are_rarely_wrong_where_the_truth_is_known():
    rates = measure(TRUTHS[0], 200, reports=25)["rates"]
    false, error = rates["false, any look"]
    assert false <= 0.05 + 2 * error
    assert rates["covered"][0] >= 0.95 - 2 * rates["covered"][1]
    assert rates["seeds, 2 sd"][0] < 20
