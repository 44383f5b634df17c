"""Statistics of a sweep: intervals over seeds, expected best of n, and parameter importance."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from warmstart.report.paired import holm

CONFIDENCE = 0.95
MAX_VALUES = 8
MIN_CONFIGURATIONS = 4
MAX_JOBS = 200
ALPHA = 0.05  # of the permutation test of a parameter
DRAWS, MIN_DRAWS, MAX_CELLS = 999, 199, 2_000_000


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95% t interval of the mean; None with fewer than two values."""
    if len(values) < 2:
        return None, None
    mean = statistics.fmean(values)
    margin = t_factor(len(values)) * statistics.stdev(values)
    return mean - margin, mean + margin


def t_factor(n: int) -> float:
    """Return half the width of the 95% t interval of a mean of n values, in standard deviations of the values."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) / math.sqrt(n)


def expected_best(values: Sequence[float], draws: int, mode: str) -> float:
    """Return the expected best of `draws` configurations drawn with replacement from the observed values.

    E[max of k] is the sum over the sorted values v_(i) of v_(i) ((i/n)^k - ((i-1)/n)^k); mode min sorts in descending
    order. More trials have a better best value by chance alone; this statistic compares searches at equal budget.

    Source: Dodge et al. (2019), "Show Your Work: Improved Reporting of Experimental Results", EMNLP,
    https://arxiv.org/abs/1909.03004
    """
    ordered = sorted(values, reverse=mode == "min")
    probabilities = np.diff((np.arange(len(ordered) + 1) / len(ordered)) ** draws)
    return float(probabilities @ np.array(ordered))


def best_of_n(
    configurations: Sequence[dict[str, Any]], parameters: Sequence[dict[str, Any]], mode: str
) -> dict[str, Any] | None:
    """Return best and expected best over all configurations, and per value of each parameter with few values.

    The values of a parameter are compared at their smallest n. None if no configuration has a mean.
    """
    scored = [row for row in configurations if row["mean"] is not None]
    if not scored:
        return None
    best = max if mode == "max" else min
    means = [row["mean"] for row in scored]
    groups = []
    for parameter in parameters:
        if len(parameter["values"]) > MAX_VALUES:
            continue
        by_value = [
            (value, [row["mean"] for row in scored if row["values"].get(parameter["key"]) == value])
            for value in parameter["values"]
        ]
        equal = min(len(found) for _, found in by_value if found)
        groups += [
            {
                "parameter": parameter["key"],
                "value": value,
                "n": len(found),
                "best": best(found) if found else None,
                "equal_n": equal,
                "expected": expected_best(found, equal, mode) if found else None,
            }
            for value, found in by_value
        ]
    return {
        "n": len(means),
        "best": best(means),
        "expected": [expected_best(means, draws, mode) for draws in range(1, len(means) + 1)],
        "groups": groups,
    }


def importance(
    jobs: Sequence[dict[str, Any]], parameters: Sequence[dict[str, Any]]
) -> dict[str, dict[str, float]] | None:
    """Return `share` and `p` of each parameter.

    The share is the fraction of the score's variance that the parameter alone explains, normalized to sum 1 (fANOVA).
    Noise has shares as well: p is that of a permutation test, adjusted by Holm, and a share with p of ALPHA or more is
    explained by noise. Large sweeps are subsampled for the shares, since the cost is quadratic in the jobs. None with
    fewer than four finished configurations, or if all scores are equal.
    """
    done = [job for job in jobs if job["score"] is not None]
    varied = {
        parameter["key"]: parameter
        for parameter in parameters
        if len({repr(job["values"].get(parameter["key"])) for job in done}) > 1
    }
    distinct = {job["configuration"] for job in done}
    if not varied or len(distinct) < MIN_CONFIGURATIONS or len({job["score"] for job in done}) < 2:
        return None
    p = dict(zip(varied, holm([permutation_p(done, parameter) for parameter in varied.values()])))
    if len(done) > MAX_JOBS:
        done = random.Random(0).sample(done, MAX_JOBS)

    import optuna

    space = {key: _distribution(parameter, done) for key, parameter in varied.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for job in done:
            values = {key: _choice(varied[key], job["values"].get(key)) for key in space}
            study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=job["score"]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
            )
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {key: {"share": float(share), "p": p[key]} for key, share in shares.items() if math.isfinite(share)} or None


def permutation_p(jobs: Sequence[dict[str, Any]], parameter: dict[str, Any]) -> float:
    """Return the p value of a permutation test that the score does not depend on a parameter.

    In a grid, scores are permuted among the jobs that differ in this parameter only, and have the same seed. Without
    such jobs, as in a random search, the mean scores of the configurations are permuted. The statistic is the variance
    between the means of the parameter's values, or of its quarters if it has more than MAX_VALUES.
    """
    key, scores = parameter["key"], np.array([job["score"] for job in jobs])
    values = [job["values"].get(key) for job in jobs]
    blocks = group_numbers(repr(sorted((k, repr(v)) for k, v in job["values"].items() if k != key)) for job in jobs)
    if len(set(zip(blocks, map(repr, values)))) == len(set(blocks)):  # no block has two values
        rows = {job["configuration"]: number for number, job in enumerate(jobs)}
        scores = np.array([np.mean([job["score"] for job in jobs if job["configuration"] == name]) for name in rows])
        values, blocks = [values[number] for number in rows.values()], np.zeros(len(rows), dtype=int)
    if parameter["kind"] == "category" or len(set(map(repr, values))) <= MAX_VALUES:
        groups = group_numbers(map(repr, values))
    else:
        groups = np.searchsorted(np.quantile(values, (0.25, 0.5, 0.75)), values)
    members = np.eye(groups.max() + 1)[groups]

    def between(permuted: np.ndarray) -> np.ndarray:
        means = permuted @ members / members.sum(axis=0)
        return (means - scores.mean()) ** 2 @ members.sum(axis=0)

    draws = int(np.clip(MAX_CELLS // len(scores), MIN_DRAWS, DRAWS))
    by_block = np.argsort(blocks, kind="stable")
    permuted = np.empty((draws, len(scores)))
    keys = np.random.default_rng(0).random((draws, len(scores))) + blocks  # sorted by block, at random within a block
    permuted[:, by_block] = scores[np.argsort(keys, axis=1)]
    observed = between(scores[None])[0]
    return float((1 + (between(permuted) >= observed * (1 - 1e-9)).sum()) / (1 + draws))


def group_numbers(names: Iterable[str]) -> np.ndarray:
    """Return the number of the group of each name (N,), from 0."""
    return np.unique(list(names), return_inverse=True)[1]


def _distribution(parameter: dict[str, Any], jobs: Sequence[dict[str, Any]]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if parameter["kind"] == "category":
        return CategoricalDistribution([str(value) for value in parameter["values"]])
    numbers = [job["values"][parameter["key"]] for job in jobs]
    return FloatDistribution(min(numbers), max(numbers), log=parameter["kind"] == "log")


def _choice(parameter: dict[str, Any], value: Any) -> Any:
    return str(value) if parameter["kind"] == "category" else float(value)
