"""From paired runs to words: helps, hurts, equivalent, cannot tell; by rules that were fixed before the first run."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from warmstart.report import paired
from warmstart.report.runs import Labels, Run, Transfer

BUDGET_WORDS = {
    "steps": "at equal steps",
    "total": "at equal total cost",
    "converged": "trained until validation stops improving",
}


def pairs(arm: list[Run], against: list[Run]) -> list[tuple[Run, Run]]:
    """The runs of both that are done, seed by seed."""
    others = {run.seed: run for run in against if run.test is not None}
    return [(run, others[run.seed]) for run in arm if run.test is not None and run.seed in others]


def matrix(transfer: Transfer, runs: list[tuple[Run, ...]]) -> np.ndarray:
    """Per independent unit and test example: the score of the first run, minus that of the second where there is one.

    Oriented so that more is better: (S, N), or (S,) where the metric is no mean over examples. Runs that share a
    pretraining count as one unit where there are several pretrainings.
    """
    scores = [[transfer.scores(run) for run in group] for group in runs]
    if any(part is None for group in scores for part in group):
        scores = [[transfer.sign * run.test for run in group] for group in runs]
    values = [np.asarray(group[0]) - (group[1] if len(group) > 1 else 0.0) for group in scores]
    units: dict[int, list[np.ndarray]] = {}
    for group, value in zip(runs, values):
        units.setdefault(transfer.unit(group[0]), []).append(value)
    return np.stack([np.mean(found, axis=0) for found in units.values()])


def interval(transfer: Transfer, runs: list[Run]) -> tuple[float | None, float | None]:
    """The 95 % interval of an arm's mean score, in the metric's own direction."""
    if len(runs) < 2:
        return None, None
    found = paired.summary(matrix(transfer, [(run,) for run in runs]))
    if found.low is None:
        return None, None
    ends = (transfer.sign * found.low, transfer.sign * found.high)
    return min(ends), max(ends)


def comparisons(transfer: Transfer) -> list[tuple[str, str, str, Labels]]:
    """What is compared: each arm with the one its config names, at each budget that both have, by labels."""
    found = []
    for budget in transfer.budgets:
        planned = [arm for arm in transfer.arms if arm in transfer.rules["budgets"][budget]]
        for arm in planned:
            against = transfer.config["arm"][arm].get("against")
            if against in planned:
                found += [(arm, against, budget, labels) for labels in transfer.labels]
    return found


def judge(transfer: Transfer) -> list[dict[str, Any]]:
    """One row per comparison, adjusted by Holm over all of them; an arm with failed runs is flagged, and not judged."""
    rows, results = [], []
    for arm, against, budget, labels in comparisons(transfer):
        groups = [transfer.group(name, budget, labels) for name in (arm, against)]
        both = pairs(*groups)
        found = paired.summary(matrix(transfer, both)) if both else None
        failed = [sum(run.state == "failed" for run in group) for group in groups]
        named = [
            f"{count} of {len(group)} {name} runs failed" for count, group, name in zip(failed, groups, (arm, against))
        ]
        row = {
            "arm": arm,
            "against": against,
            "budget": budget,
            "labels": labels,
            "n": found.n if found else 0,
            "difference": transfer.sign * statistics.fmean(a.test - b.test for a, b in both) if both else None,
            "interval": [found.low, found.high] if found else [None, None],
            "p": found.p if found and found.n >= paired.FEWEST_UNITS else None,
            "p_holm": None,
            "effect": found.effect if found else None,
            "verdict": None,
            "seeds_needed": None,
            "p_equivalent": None,
            "flag": "; ".join(text for text, count in zip(named, failed) if count) or None,
        }
        rows.append(row)
        results.append(found)
    judged = [index for index, row in enumerate(rows) if row["p"] is not None]
    for index, p_holm in zip(judged, paired.holm([rows[index]["p"] for index in judged])):
        row, found = rows[index], results[index]
        row["p_holm"] = p_holm
        row["p_equivalent"] = paired.equivalence(found, transfer.rules["margin"])
        word = paired.verdict(p_holm, row["p_equivalent"], row["difference"], found.n)
        row["verdict"] = "cannot tell" if row["flag"] else word
        if row["verdict"] == "cannot tell":
            row["seeds_needed"] = paired.seeds_needed(found)
    return rows


def headline(transfer: Transfer, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The verdict of the report, about its first comparison at its first budget, over all label counts.

    helps: at one label count or more, and hurts at none; hurts: the other way round; equivalent: at all of them;
    cannot tell: everything else. None where there are too few seeds.
    """
    if not rows:
        return {"verdict": None, "sentence": "No verdict: no arm was compared with another.", "arm": None}
    first = rows[0]
    same = [row for row in rows if all(row[key] == first[key] for key in ("arm", "against", "budget"))]
    words = [row["verdict"] for row in same]
    if None in words:
        n = min(row["n"] for row in same)
        unit = "seed" if transfer.rules["pretrain_seeds"] == 1 else "pretraining"
        word = None
        sentence = (
            f"No verdict: {n} paired {f'{unit} is' if n == 1 else f'{unit}s are'} too few to tell noise from gain; "
            f"{paired.FEWEST_UNITS} are needed."
        )
    else:
        if "helps" in words and "hurts" not in words:
            word = "helps"
        elif "hurts" in words and "helps" not in words:
            word = "hurts"
        else:
            word = "equivalent" if set(words) == {"equivalent"} else "cannot tell"
        sentence = sentence_of(transfer, same)
    return {"verdict": word, "sentence": sentence, **{key: first[key] for key in ("arm", "against", "budget")}}


def sentence_of(transfer: Transfer, rows: list[dict[str, Any]]) -> str:
    """What the rows of one comparison say, in words with numbers."""
    first = rows[0]
    parts = []
    for word, text in (
        ("helps", "helps with {}"),
        ("hurts", "hurts with {}"),
        ("equivalent", "makes no difference that matters with {}"),
        ("cannot tell", "shows no effect that these runs can tell with {}"),
    ):
        found = [row for row in rows if row["verdict"] == word]
        if found:
            parts.append(text.format(labels_text([row["labels"] for row in found])) + f" ({change(transfer, found)})")
    subject = "Pretraining" if first["arm"] == "pretrained" else f"The arm {first['arm']}"
    against = "" if first["against"] == "scratch" else f" against {first['against']}"
    return f"{subject}{against}, {BUDGET_WORDS[first['budget']]}: {'; '.join(parts)}."


def change(transfer: Transfer, rows: list[dict[str, Any]]) -> str:
    """The largest difference among rows, with its interval."""
    row = max(rows, key=lambda row: abs(row["difference"]))
    low, high = row["interval"]
    where = f" at {row['labels']}" if len(rows) > 1 else ""
    better = "" if transfer.sign == 1 else ", less being better and counted as more"
    name = transfer.metric.removeprefix("test/")
    return f"{row['difference']:+.3g} {name}{where}, 95 % interval {low:+.3g} to {high:+.3g}{better}"


def labels_text(labels: list[Labels]) -> str:
    """1, 2 and 5 labels per class."""
    texts = [f"{label:.0%} of the labels" if isinstance(label, float) else str(label) for label in labels]
    texts = ["all labels" if text == "all" else text for text in texts]
    joined = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    if not isinstance(labels[-1], int):
        return joined
    return f"{joined} label{'' if labels == [1] else 's'} per class"
