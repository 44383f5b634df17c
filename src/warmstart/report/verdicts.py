"""Verdicts on paired runs: helps, hurts, equivalent or cannot tell, by rules fixed before the first run."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from warmstart.report import paired
from warmstart.report.looks import looks_of
from warmstart.report.runs import Labels, Run, Transfer

BUDGET_PHRASES = {
    "steps": "at equal steps",
    "total": "at equal total cost",
    "converged": "with the best checkpoint of a longer training",
}


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


def interval(transfer: Transfer, runs: list[Run]) -> tuple[float | None, float | None]:
    """Return the 95 % interval of an arm's mean score, with the original sign of the metric."""
    if len(runs) < 2:
        return None, None
    found = paired.summary(matrix(transfer, [(run,) for run in runs]))
    if found.low is None:
        return None, None
    bounds = (transfer.sign * found.low, transfer.sign * found.high)
    return min(bounds), max(bounds)


def comparisons(transfer: Transfer) -> list[tuple[str, str, str, Labels]]:
    """Return all comparisons: each arm with those that `against` names, by common budget and label count."""
    found = []
    for budget in transfer.budgets:
        planned = [arm for arm in transfer.arms if arm in transfer.rules["budgets"][budget]]
        for arm in planned:
            controls = transfer.config["arm"][arm].get("against") or []
            for against in [controls] if isinstance(controls, str) else controls:
                if against in planned:
                    found += [(arm, against, budget, labels) for labels in transfer.labels]
    return found


def judge(transfer: Transfer) -> list[dict[str, Any]]:
    """Return one row per comparison, Holm-adjusted over all; with failed runs, the verdict is cannot tell.

    With several looks, p values and intervals are repeated ones, which hold at any look.
    """
    rows, results, looks = [], [], looks_of(transfer)
    for arm, against, budget, labels in comparisons(transfer):
        groups = [transfer.group(name, budget, labels) for name in (arm, against)]
        paired_runs = pairs(*groups)
        found = paired.summary(matrix(transfer, paired_runs), looks.alpha) if paired_runs else None
        failed = [sum(run.state == "failed" for run in group) for group in groups]
        flags = [
            f"{count} of {len(group)} {name} runs failed" for count, group, name in zip(failed, groups, (arm, against))
        ]
        row = {
            "arm": arm,
            "against": against,
            "budget": budget,
            "labels": labels,
            "n": found.n if found else 0,
            "difference": transfer.sign * statistics.fmean(a.test - b.test for a, b in paired_runs)
            if paired_runs
            else None,
            "interval": [found.low, found.high] if found else [None, None],
            "p": looks.p(found.p) if found and found.n >= paired.MIN_UNITS else None,
            "p_holm": None,
            "effect": found.effect if found else None,
            "verdict": None,
            "seeds_needed": None,
            "p_equivalent": None,
            "flag": "; ".join(text for text, count in zip(flags, failed) if count) or None,
        }
        rows.append(row)
        results.append(found)
    judged = [index for index, row in enumerate(rows) if row["p"] is not None]
    for index, p_holm in zip(judged, paired.holm([rows[index]["p"] for index in judged])):
        row, found = rows[index], results[index]
        row["p_holm"] = p_holm
        row["p_equivalent"] = looks.one_sided(paired.equivalence(found, transfer.rules["margin"]))
        verdict = paired.verdict(p_holm, row["p_equivalent"], row["difference"], found.n)
        row["verdict"] = "cannot tell" if row["flag"] else verdict
        if row["verdict"] == "cannot tell":
            row["seeds_needed"] = paired.seeds_needed(found)
    return rows


def headline(transfer: Transfer, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the verdict of the report: the first comparison at its first budget, over all label counts.

    helps: at one label count or more, and hurts at none; hurts: vice versa; equivalent: at all label counts; cannot
    tell: all other cases; None: too few seeds.
    """
    if not rows:
        return {"verdict": None, "sentence": "No verdict: no arm was compared with another.", "arm": None}
    first = rows[0]
    same = [row for row in rows if all(row[key] == first[key] for key in ("arm", "against", "budget"))]
    verdicts = [row["verdict"] for row in same]
    if None in verdicts:
        n = min(row["n"] for row in same)
        unit = "seed" if transfer.rules["pretrain_seeds"] == 1 else "pretraining"
        verdict = None
        sentence = (
            f"No verdict: {n} paired {f'{unit} is' if n == 1 else f'{unit}s are'} too few; "
            f"at least {paired.MIN_UNITS} are needed."
        )
    else:
        if "helps" in verdicts and "hurts" not in verdicts:
            verdict = "helps"
        elif "hurts" in verdicts and "helps" not in verdicts:
            verdict = "hurts"
        else:
            verdict = "equivalent" if set(verdicts) == {"equivalent"} else "cannot tell"
        sentence = sentence_of(transfer, same)
    return {"verdict": verdict, "sentence": sentence, **{key: first[key] for key in ("arm", "against", "budget")}}


def sentence_of(transfer: Transfer, rows: list[dict[str, Any]]) -> str:
    """Return the headline sentence for the rows of one comparison."""
    first = rows[0]
    clauses = []
    for verdict, text in (
        ("helps", "helps with {}"),
        ("hurts", "hurts with {}"),
        ("equivalent", "is equivalent within the margin with {}"),
        ("cannot tell", "has no detectable effect with {}"),
    ):
        found = [row for row in rows if row["verdict"] == verdict]
        if found:
            clauses.append(text.format(labels_text([row["labels"] for row in found])) + f" ({change(transfer, found)})")
    subject = "Pretraining" if first["arm"] == "pretrained" else f"The arm {first['arm']}"
    against = "" if first["against"] == "scratch" else f" against {first['against']}"
    return f"{subject}{against}, {BUDGET_PHRASES[first['budget']]}: {'; '.join(clauses)}."


def change(transfer: Transfer, rows: list[dict[str, Any]]) -> str:
    """Return the largest difference among rows with its interval, as text."""
    row = max(rows, key=lambda row: abs(row["difference"]))
    low, high = row["interval"]
    count = f" at {row['labels']}" if len(rows) > 1 else ""
    better = "" if transfer.sign == 1 else ", where positive is better"
    name = transfer.metric.removeprefix("test/")
    return f"{row['difference']:+.3g} {name}{count}, 95 % interval {low:+.3g} to {high:+.3g}{better}"


def labels_text(labels: list[Labels]) -> str:
    """Return label counts as text, such as `1, 2 and 5 labels per class`."""
    texts = [f"{label:.0%} of the labels" if isinstance(label, float) else str(label) for label in labels]
    texts = ["all labels" if text == "all" else text.replace("<=", "up to ") for text in texts]
    joined = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    if isinstance(labels[-1], float) or labels[-1] == "all":
        return joined
    return f"{joined} label{'' if labels == [1] else 's'} per class"
