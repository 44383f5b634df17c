"""Verdicts on paired runs: helps, hurts, equivalent or cannot tell, by rules fixed before the first run."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from warmstart.report import controls, paired
from warmstart.report.controls import Comparison
from warmstart.report.looks import looks_of
from warmstart.report.rows_needed import detectable, rows_needed
from warmstart.report.runs import Labels, Run, Transfer

BUDGET_PHRASES = {
    "steps": "at equal steps",
    "total": "at equal total cost",
    "converged": "with the best checkpoint of a longer training",
}


def budget_phrase(transfer: Transfer, arms: list[str], budget: str) -> str:
    """Return the condition of a comparison as text, such as `at equal steps`, unless an arm has its own training."""
    clauses = []
    for arm in arms:
        node = transfer.config["arm"][arm]
        if node.get("length"):
            clauses.append(f"with up to {node['length']:g} times the steps for {arm}")
        if node.get("baseline"):
            clauses.append(f"with no training steps for {arm}")
    return " and ".join(clauses) or BUDGET_PHRASES[budget]


def unit_noun(rules: dict[str, Any], count: int | None = None) -> str:
    """Return what an independent unit is: seed or pretraining; in the plural unless `count` is 1."""
    noun = "seed" if rules["pretrain_seeds"] == 1 else "pretraining"
    return noun if count == 1 else f"{noun}s"


def pairs(arm: list[Run], against: list[Run]) -> list[tuple[Run, Run]]:
    """Pair the finished runs of two arms by seed."""
    others = {run.seed: run for run in against if run.test is not None}
    return [(run, others[run.seed]) for run in arm if run.test is not None and run.seed in others]


def matrix(transfer: Transfer, runs: list[tuple[Run, ...]]) -> np.ndarray:
    """Return scores, or differences of paired scores, by independent unit and test example; higher is better.

    The shape is (S, N), or (S,) if the metric is not a mean over examples. If there are several pretrainings, runs that
    share one are averaged to one unit.
    """
    scores = [[transfer.scores(run) for run in group] for group in runs]
    if any(score is None for group in scores for score in group):
        scores = [[transfer.sign * run.test for run in group] for group in runs]
    values = [np.asarray(group[0]) - (group[1] if len(group) > 1 else 0.0) for group in scores]
    units: dict[int, list[np.ndarray]] = {}
    for group, value in zip(runs, values):
        units.setdefault(transfer.unit(group[0]), []).append(value)
    return np.stack([np.mean(found, axis=0) for found in units.values()])


def sampled_clusters(transfer: Transfer) -> np.ndarray | None:
    """Return the cluster numbers of the test examples (N,) that are resampled; None if the examples are.

    With fewer than MIN_CLUSTERS clusters, the inference is about these clusters, and the examples within them.
    """
    found = transfer.test_clusters
    return found.codes if found is not None and found.is_sample else None


def estimate(transfer: Transfer, runs: list[tuple[Run, ...]], alpha: float = paired.ALPHA) -> paired.Paired:
    """Estimate the mean score of runs, or the mean difference of pairs of runs, over units and test examples."""
    values = matrix(transfer, runs)
    return paired.summary(values, sampled_clusters(transfer) if values.ndim > 1 else None, alpha)


def interval(transfer: Transfer, runs: list[Run]) -> tuple[float | None, float | None]:
    """Return the 95 % interval of an arm's mean score, with the original sign of the metric, within its bounds."""
    if len(runs) < 2:
        return None, None
    found = estimate(transfer, [(run,) for run in runs])
    if found.low is None:
        return None, None
    low, high = sorted((transfer.sign * found.low, transfer.sign * found.high))
    return clipped(low, high, transfer.bounds)


def difference_interval(transfer: Transfer, found: paired.Paired | None) -> list[float | None]:
    """Return the interval of a difference, within the differences that two scores can have."""
    if found is None or found.low is None:
        return [None, None]
    low, high = transfer.bounds
    return list(clipped(found.low, found.high, (low - high, high - low)))


def clipped(low: float, high: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Return an interval within bounds."""
    return max(low, bounds[0]), min(high, bounds[1])


def comparisons(transfer: Transfer) -> list[Comparison]:
    """Return all comparisons: each arm with those that `against` names, by common budget and label count."""
    found = []
    for budget in transfer.budgets:
        planned = [arm for arm in transfer.arms if arm in transfer.rules["budgets"][budget]]
        for arm in planned:
            others = transfer.config["arm"][arm].get("against") or []
            for against in [others] if isinstance(others, str) else others:
                if against in planned:
                    found += [Comparison(arm, against, budget, labels) for labels in transfer.labels]
    return found


def family(transfer: Transfer) -> list[Comparison]:
    """Return all comparisons, and those with the strongest control and the initial weights without finetuning."""
    found = comparisons(transfer)
    return [*found, *controls.added(transfer, found)]


def judge(transfer: Transfer) -> list[dict[str, Any]]:
    """Return one row per comparison, Holm-adjusted over all; with failed runs, the verdict is cannot tell.

    With several looks, p values and intervals are repeated ones, which hold at any look. The seeds and rows needed are
    for a test at the level of the last look, Bonferroni-corrected for all comparisons.
    """
    rows, results, looks = [], [], looks_of(transfer)
    for arm, against, budget, labels, role in family(transfer):
        groups = [transfer.group(name, budget, labels) for name in (arm, against)]
        paired_runs = pairs(*groups)
        found = estimate(transfer, paired_runs, looks.alpha) if paired_runs else None
        failed = [sum(run.state == "failed" for run in group) for group in groups]
        flags = [
            f"{count} of {len(group)} {name} runs failed" for count, group, name in zip(failed, groups, (arm, against))
        ]
        row = {
            "arm": arm,
            "against": against,
            "role": role,
            "budget": budget,
            "budget_text": budget_phrase(transfer, [arm, against], budget),
            "labels": labels,
            "n": found.n if found else 0,
            "difference": found.difference if found else None,
            "interval": difference_interval(transfer, found),
            "p": looks.p(found.p) if found and found.n >= paired.MIN_UNITS else None,
            "p_holm": None,
            "effect": found.effect if found else None,
            "verdict": None,
            "seeds_needed": None,
            "rows_needed": None,
            "clusters_needed": None,
            "detectable": detectable(found) if found else None,
            "p_equivalent": None,
            "flag": "; ".join(text for text, count in zip(flags, failed) if count) or None,
        }
        rows.append(row)
        results.append(found)
    judged = [index for index, row in enumerate(rows) if row["p"] is not None]
    level = replace(looks, made=len(looks.planned)).level(paired.ALPHA / max(1, len(judged)))
    for index, p_holm in zip(judged, paired.holm([rows[index]["p"] for index in judged])):
        row, found = rows[index], results[index]
        row["p_holm"] = p_holm
        row["p_equivalent"] = looks.one_sided(paired.equivalence(found, transfer.rules["margin"]))
        verdict = paired.verdict(p_holm, row["p_equivalent"], row["difference"], found.n)
        row["verdict"] = "cannot tell" if row["flag"] else verdict
        if row["verdict"] == "cannot tell" and not row["flag"]:
            row["seeds_needed"] = paired.seeds_needed(found, level)
            rows_then = rows_needed(found, level)
            row["rows_needed"] = rows_then if rows_then and rows_then > found.examples else None
            clusters = transfer.test_clusters
            if row["rows_needed"] and clusters is not None and clusters.is_sample:
                row["clusters_needed"] = math.ceil(clusters.count * row["rows_needed"] / found.examples)
    return rows


def compared_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the verdicts of the headline's comparison; those of the first comparison if the headline names none."""
    rows, keys = report["verdicts"], ("arm", "against", "budget")
    if not rows:
        return []
    first = report["headline"] if report["headline"].get("against") else rows[0]
    return [row for row in rows if all(row[key] == first[key] for key in keys)]


def more_needed(row: dict[str, Any], unit: str, clusters: dict[str, Any] | None) -> str | None:
    """Return what a row that cannot tell would need, as text: more seeds, or more test rows.

    None for other rows, with failed runs, and if the seeds are enough for a verdict at the last look.

    Args:
        unit: seeds, or pretrainings.
        clusters: of the report.
    """
    if row["verdict"] != "cannot tell" or row["flag"]:
        return None
    if row["seeds_needed"]:
        return f"{row['seeds_needed']:,} {unit} would suffice" if row["seeds_needed"] > row["n"] else None
    text = f"no number of {unit} suffices on this test set"
    if not row["rows_needed"]:
        return text
    of = f" of {row['clusters_needed']:,} {clusters['noun']}" if row["clusters_needed"] else ""
    return f"{text}: it is too small, {row['rows_needed']:,} test rows{of} would be needed"


def scope_text(report: dict[str, Any]) -> str:
    """Return the restriction of a verdict to the test clusters if they are few, else an empty text."""
    these = report["clusters"] and report["clusters"]["these"]
    return f" on {these} only" if these else ""


def against_text(row: dict[str, Any]) -> str:
    """Return the arm that a row compares with, and its role."""
    return row["against"] + (f" ({controls.SHORT_NAMES[row['role']]})" if row["role"] else "")


def tick(labels: Labels) -> str:
    """Return a label count as a tick label: 5, 10%, ≤200, all."""
    return f"{100 * labels:.3g}%" if isinstance(labels, float) else str(labels).replace("<=", "≤")


def listed(texts: list[str]) -> str:
    """Return texts as one, such as `a, b and c`."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def labels_text(labels: list[Labels]) -> str:
    """Return label counts as text, such as `1 and 5 labels per class` or `5 labels per class and 10% of the labels`."""
    texts: list[str] = []
    for is_share, group in itertools.groupby(labels, lambda label: isinstance(label, float) or label == "all"):
        counts = list(group)
        names = [tick(label).replace("≤", "up to ") for label in counts]
        if is_share:
            texts += ["all labels" if name == "all" else f"{name} of the labels" for name in names]
        else:
            texts += [*names[:-1], f"{names[-1]} label{'' if counts == [1] else 's'} per class"]
    return listed(texts)
