"""The paired comparison, against scipy, worked examples and simulations with known truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from scripts.calibrate import TRUTHS, measure
from scripts.calibrate_clusters import FIRST
from scripts.calibrate_clusters import measure as measure_clusters

from warmstart.report import paired
from warmstart.report.cluster_variance import cluster_variance
from warmstart.report.paired import (
    Paired,
    bootstrap_weights,
    equivalence,
    holm,
    power,
    seeds_needed,
    summary,
    verdict,
    weighted_means,
)
from warmstart.report.rows_needed import detectable, rows_needed, with_rows

ARM = np.array([0.81, 0.84, 0.79, 0.88, 0.83])
CONTROL = np.array([0.78, 0.80, 0.80, 0.82, 0.79])


def crossed(seeds: int, examples: int, rng: np.random.Generator, spreads: tuple[float, float, float]) -> np.ndarray:
    """Seed, example and interaction effects of these standard deviations around 0."""
    parts = rng.standard_normal((seeds, 1)), rng.standard_normal((1, examples)), rng.standard_normal((seeds, examples))
    return sum(spread * part for spread, part in zip(spreads, parts))


def scaled(effect: float, n: int) -> np.ndarray:
    """Per-seed differences whose mean is `effect` of their standard deviations exactly."""
    values = np.arange(n, dtype=float)
    return (values - values.mean()) / values.std(ddof=1) + effect


@pytest.mark.parametrize("examples", [None, 1, 50])
def test_without_noise_of_the_test_set_it_is_the_paired_t_test(examples: int | None):
    differences = ARM - CONTROL
    if examples:
        ripple = np.random.default_rng(0).standard_normal((5, examples))
        ripple -= ripple.mean(axis=0)
        ripple -= ripple.mean(axis=1, keepdims=True)
        differences = differences[:, None] + ripple
    found = summary(differences)
    scipys = stats.ttest_rel(ARM, CONTROL)
    interval = scipys.confidence_interval()
    assert (found.n, found.examples) == (5, examples or 1)
    assert found.difference == pytest.approx(np.mean(ARM - CONTROL))
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, scipys.pvalue))
    assert found.effect == pytest.approx(np.mean(ARM - CONTROL) / np.std(ARM - CONTROL, ddof=1))


def test_where_seeds_do_not_matter_it_is_the_t_test_over_examples():
    examples = np.random.default_rng(0).exponential(size=30)
    found = summary(np.tile(examples, (6, 1)))
    scipys = stats.ttest_1samp(examples, 0)
    interval = scipys.confidence_interval()
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, scipys.pvalue))
    assert found.effect is None


def test_the_error_counts_seeds_examples_and_their_interaction_once():
    rng = np.random.default_rng(0)
    seeds, examples, spreads = 8, 40, (0.5, 2.0, 3.0)
    found = [summary(crossed(seeds, examples, rng, spreads)).standard_error ** 2 for _ in range(2000)]
    true = spreads[0] ** 2 / seeds + spreads[1] ** 2 / examples + spreads[2] ** 2 / (seeds * examples)
    assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / math.sqrt(2000))


def test_the_critical_value_is_the_weighted_mean_of_both_and_p_agrees_with_it():
    found = Paired(6, 31, 0.9, spread=math.sqrt(6) * 0.4, example_error=0.3)
    assert found.standard_error == pytest.approx(0.5)
    assert found.critical(0.025) == pytest.approx(0.64 * stats.t.isf(0.025, 5) + 0.36 * stats.t.isf(0.025, 30))
    assert found.critical(found.p / 2) == pytest.approx(0.9 / 0.5)
    assert dataclasses.replace(found, alpha=found.p).low == pytest.approx(0, abs=1e-9)
    assert found.tail(-0.9) == pytest.approx(1 - found.p / 2)


def test_no_difference_at_all():
    found = summary(np.zeros((5, 10)))
    assert (found.difference, found.low, found.high, found.p, found.effect) == (0, 0, 0, 1, None)
    assert equivalence(found, 0.01) == 0
    assert equivalence(found, 0) == 0.5
    assert seeds_needed(found) is None


def test_one_seed_gives_no_interval():
    found = summary(np.array([[0.1, 0.2]]))
    assert (found.n, found.difference, found.low, found.high, found.p) == (1, pytest.approx(0.15), None, None, 1)
    assert equivalence(found, 1.0) == 1
    assert seeds_needed(found) is None


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((5, 10)),
        np.full((5, 10), 0.1),
        np.full(5, 0.1),
        np.ones((1, 1)),
        np.ones((2, 1)),
        np.eye(3),
        np.tile([0.0, 1.0], (4, 1)),
        np.array([0.9, 0.8, 0.7]) - np.array([0.8, 0.7, 0.6]),
        np.full((5, 3), 1e-300),
    ],
)
def test_nothing_is_ever_nan(matrix: np.ndarray):
    found = summary(matrix)
    numbers = [*dataclasses.astuple(found), found.standard_error, found.low, found.high, found.p, found.effect]
    numbers += [equivalence(found, margin) for margin in (0, 0.1, 1)]
    assert all(math.isfinite(number) for number in numbers if number is not None)
    assert 0 <= found.p <= 1
    assert seeds_needed(found) is None or seeds_needed(found) >= 2


def test_equal_differences_up_to_rounding_have_no_effect_size():
    assert summary(np.array([0.9, 0.8, 0.7]) - np.array([0.8, 0.7, 0.6])).effect is None


@pytest.mark.parametrize("matrix", [[], [[]], [0.1, np.nan], [[np.inf, 1.0]], 1.0, np.zeros((2, 2, 2))])
def test_what_is_no_matrix_of_numbers_is_refused(matrix: object):
    with pytest.raises(ValueError, match="finite values"):
        summary(np.array(matrix))


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.05, -0.2])
def test_equivalence_is_the_larger_of_two_one_sided_tests(shift: float):
    differences, margin = ARM - CONTROL + shift, 0.05
    sides = [
        stats.ttest_1samp(differences, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(differences, margin, alternative="less").pvalue,
    ]
    assert equivalence(summary(differences), margin) == pytest.approx(max(sides))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("p_holm", "p_equivalent", "difference", "n", "says"),
    [
        (0.01, 0.9, 0.1, 5, "helps"),
        (0.01, 0.01, -0.1, 5, "hurts"),
        (0.05, 0.01, 0.1, 5, "equivalent"),
        (0.2, 0.05, 0.1, 5, "cannot tell"),
        (0.01, 0.01, 0.1, 4, None),
    ],
)
def test_the_verdict(p_holm: float, p_equivalent: float, difference: float, n: int, says: str | None):
    assert verdict(p_holm, p_equivalent, difference, n) == says


@pytest.mark.parametrize(("effect", "needed"), [(0.5, 34), (-0.8, 15), (0.2, 199)])
def test_seeds_needed_by_cohens_tables(effect: float, needed: int):
    assert seeds_needed(summary(scaled(effect, 10))) == needed


def test_seeds_needed_are_found_that_often():
    truth = Paired(10, 400, 0.5, spread=1.0, example_error=0.1)
    needed = seeds_needed(truth)
    assert needed > 34
    rng = np.random.default_rng(0)
    found = [summary(0.5 + crossed(needed, 400, rng, (math.sqrt(1 - 1 / 400), 2.0, 1.0))).p < 0.05 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_no_number_of_seeds_makes_up_for_a_small_test_set():
    seen = summary(scaled(0.5, 10))
    assert seeds_needed(dataclasses.replace(seen, examples=50, example_error=0.4)) is None
    assert seeds_needed(summary(scaled(0.001, 10))) is None


def test_the_bootstraps_mean_and_variance():
    matrix = 1 + crossed(6, 25, np.random.default_rng(2), (0.5, 2.0, 3.0))
    means = weighted_means(matrix, bootstrap_weights(*matrix.shape, 20_000, seed=3))
    rows, columns = matrix.mean(axis=1), matrix.mean(axis=0)
    rest = matrix - rows[:, None] - columns + matrix.mean()
    variance = rows.var() / 6 + columns.var() / 25 + (rest**2).sum() / matrix.size**2
    assert means.mean() == pytest.approx(matrix.mean(), abs=4 * math.sqrt(variance / 20_000))
    assert means.var() == pytest.approx(variance, rel=0.05)
    assert weighted_means(matrix[:, 0], bootstrap_weights(len(matrix), 1, 20_000)).var() == pytest.approx(
        matrix[:, 0].var() / 6, rel=0.05
    )


def test_with_equal_clusters_and_seeds_that_do_not_matter_it_is_nearly_the_t_test_over_clusters():
    examples = np.random.default_rng(0).standard_normal(24) + np.repeat([0.5, 0, 1, 2, 0, 1], 4)
    found = summary(np.tile(examples, (6, 1)), np.repeat(list("cafbed"), 4))
    interval = stats.ttest_1samp(examples.reshape(6, 4).mean(1), 0).confidence_interval()
    assert found.high - found.low == pytest.approx((interval.high - interval.low) * math.sqrt(6 / 5))
    assert found.high + found.low == pytest.approx(interval.high + interval.low)


def test_clusters_of_one_example_are_nearly_independent_examples():
    centred = crossed(5, 30, np.random.default_rng(0), (1, 2, 3))
    centred -= centred.mean()
    found = cluster_variance(centred, np.random.default_rng(1).permutation(30))
    rest = centred - centred.mean(0) - centred.mean(1, keepdims=True)
    assert found.clusters == pytest.approx(centred.mean(0).var(ddof=1) / 30 * 30 / 29)
    assert found.interaction == pytest.approx((rest**2).sum() / (4 * 29) / 30 * 30 / 29)
    assert found.freedom == pytest.approx(29)


def test_unequal_clusters_have_fewer_degrees_of_freedom_and_no_variance_that_is_too_small():
    rng, codes = np.random.default_rng(0), np.repeat([0, 1, 2, 3, 4], [8, 4, 2, 1, 1])
    found = [cluster_variance(row - row.mean(), codes) for row in rng.standard_normal((4000, 2, 16))]
    assert found[0].freedom == pytest.approx(16**2 / (64 + 16 + 4 + 1 + 1) - 1)
    variances = [one.clusters for one in found]  # of means over two seeds
    assert 1 / 32 < np.mean(variances) < 1.6 / 32


def test_the_error_is_at_least_that_of_the_clusters_alone_and_of_the_seeds_alone():
    for seed in range(50):
        found = summary(crossed(3, 12, np.random.default_rng(seed), (0, 0.2, 1)), np.repeat([0, 1, 2, 3, 4, 5], 2))
        assert found.standard_error >= max(found.cluster_error, found.spread / math.sqrt(3)) - 1e-12
        assert found.test_share > 0


@pytest.mark.parametrize("sizes", [[1, 1], [99, 1], [500, 1, 1, 1, 1]])
def test_no_sizes_of_clusters_give_nan(sizes: list[int]):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    for matrix in (np.zeros((5, len(codes))), crossed(5, len(codes), np.random.default_rng(0), (1, 1, 1))):
        found = summary(matrix, codes)
        assert all(map(math.isfinite, (found.low, found.high, found.p, equivalence(found, 0.1))))
        assert found.low <= found.difference <= found.high
        assert rows_needed(found) is None or rows_needed(found) >= len(codes)


@pytest.mark.parametrize(
    "sizes", [[950, *[10] * 5], [490, *[5] * 4], [9900, *[1] * 5], [900, *[5] * 20], [500, *[10] * 4]]
)
def test_with_one_cluster_that_has_nearly_all_examples_no_number_is_enough(sizes: list[int]):
    rng, codes = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    found = summary(crossed(5, len(codes), rng, (0.1, 1, 1)), codes)
    assert found.freedom < 1
    assert (detectable(found), rows_needed(found), seeds_needed(found)) == (None, None, None)


@pytest.mark.parametrize(
    ("clusters", "says"), [(["a"] * 6, "one cluster"), (["a", "b"], "6 examples, but the clusters")]
)
def test_clusters_that_do_not_fit_are_refused(clusters: list[str], says: str):
    with pytest.raises(ValueError, match=says):
        summary(np.zeros((5, 6)), np.array(clusters))


def test_the_bootstrap_draws_whole_clusters():
    rng, codes = np.random.default_rng(0), np.repeat([0, 1, 2, 3, 4, 5], [1, 2, 3, 3, 2, 1])
    _, drawn = weights = bootstrap_weights(4, 12, 2000, clusters=np.array(list("qwerty"))[codes])
    assert all((drawn[:, codes == code] == drawn[:, codes == code][:, :1]).all() for code in range(6))
    matrix = np.tile(3 + rng.standard_normal(6)[codes], (4, 1))
    means = weighted_means(matrix, weights)
    assert means.mean() == pytest.approx(matrix.mean(), abs=0.06)
    assert matrix.min() <= means.min() <= means.max() <= matrix.max()
    constant = weighted_means(np.ones((4, 12)), weights)
    assert constant == pytest.approx(1)


def test_rows_needed_by_cohens_tables():
    seen = Paired(10, 20, 0.5, spread=0.0, example_error=1 / math.sqrt(20))
    assert rows_needed(seen) == 34
    assert rows_needed(dataclasses.replace(seen, spread=5.0)) is None  # ten such seeds are too few
    assert rows_needed(dataclasses.replace(seen, difference=0.0)) is None
    noise = dataclasses.replace(seen, spread=1.0, interaction=1.0)
    assert with_rows(noise, 80).spread == pytest.approx(0.5)
    assert 34 < rows_needed(noise) < rows_needed(dataclasses.replace(noise, interaction=0.9))
    clustered = dataclasses.replace(seen, freedom=4.0, cluster_error=seen.example_error)
    assert rows_needed(clustered) > 34
    assert power(with_rows(clustered, rows_needed(clustered))) >= 0.8


def test_the_smallest_detectable_difference_has_a_power_of_80_percent():
    seen = Paired(10, 15, 0.1, spread=0.2, example_error=0.1)
    smallest = detectable(seen)
    assert smallest == pytest.approx(0.1 * (stats.t.isf(0.025, 14) + stats.t.isf(0.2, 14)), rel=0.02)
    assert power(dataclasses.replace(seen, difference=smallest, spread=0.0)) == pytest.approx(0.8, abs=1e-6)
    assert detectable(summary(ARM - CONTROL)) is None


def test_shared_weights_keep_the_pairing(monkeypatch: pytest.MonkeyPatch):
    arm, control = np.random.default_rng(4).standard_normal((2, 7, 30))
    weights = bootstrap_weights(7, 30, draws=50, seed=5)
    assert [part.shape for part in weights] == [(50, 7), (50, 30)]
    assert (weights[0].sum(axis=1) == 7).all()
    assert (weights[1].sum(axis=1) == 30).all()
    expected = np.einsum("ds,dn,sn->d", *(part.astype(float) for part in weights), arm) / arm.size
    assert weighted_means(arm, weights) == pytest.approx(expected)
    difference = weighted_means(arm, weights) - weighted_means(control, weights)
    assert difference == pytest.approx(weighted_means(arm - control, weights))
    monkeypatch.setattr(paired, "CHUNK", 100)
    assert weighted_means(arm, weights) == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [5, 10])
def test_it_is_rarely_wrong_where_the_truth_is_known(seeds: int):
    rates = measure(TRUTHS[0], seeds, 200, reports=300)["rates"]
    false, error = rates["false"]
    assert false <= 0.05 + 2 * error
    covered, error = rates["covered"]
    assert 0.93 - 2 * error <= covered <= 0.97 + 2 * error
    wrong, error = rates["tost"]
    assert wrong <= 0.05 + 2 * error
    assert rates["false, seeds only"][0] > 0.05 + 2 * rates["false, seeds only"][1]
    assert rates["covered, seeds only"][0] < 0.93 - 2 * rates["covered, seeds only"][1]


def test_with_clusters_it_is_rarely_wrong_where_ignoring_them_is():
    rates = measure_clusters(FIRST[1], reports=60)["rates"]
    false, error = rates["false"]
    assert false <= 0.05 + 2 * error
    assert rates["covered"][0] >= 0.93 - 2 * rates["covered"][1]
    assert rates["false, ignored"][0] > 0.1 + 2 * error
