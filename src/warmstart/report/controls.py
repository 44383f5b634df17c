"""The strongest arm without the pretrained weights and the untouched start, selected on validation, never on test."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from warmstart.core.init import Init
from warmstart.report.paired import MIN_UNITS
from warmstart.report.runs import Labels, Transfer

STRONGEST, UNTOUCHED = "strongest", "untouched"
CONSTANT = "majority"  # the baseline with a constant prediction
NAMES = {STRONGEST: "strongest control", UNTOUCHED: "untouched start"}


class Comparison(NamedTuple):
    """An arm and the arm that it is compared with, at a budget and a label count.

    `role` is that of `against`: STRONGEST control or UNTOUCHED start, selected on validation; None if the config names
    it.
    """

    arm: str
    against: str
    budget: str
    labels: Labels
    role: str | None = None


def role(node: dict[str, Any]) -> str | None:
    """Return the role that the config of an arm allows it as a control; None for all others.

    STRONGEST: it does not use the pretrained weights, and is no constant prediction. UNTOUCHED: a baseline that uses
    them as they are, such as the nearest neighbours of their features.
    """
    init, baseline = node.get("init"), node.get("baseline")
    name = baseline if isinstance(baseline, str | None) else baseline["_target_"].split(".")[-2]
    if name == CONSTANT:
        return None
    if init is None or Init.parse(str(init)).is_scratch:
        return STRONGEST
    return UNTOUCHED if baseline is not None else None


def candidates(transfer: Transfer, budget: str, wanted: str) -> list[str]:
    """Return the arms of a budget that have a role."""
    nodes = transfer.config["arm"]
    planned = (arm for arm in transfer.arms if arm in transfer.rules["budgets"][budget])
    return [arm for arm in planned if role(nodes[arm]) == wanted]


def best_on_validation(transfer: Transfer, arms: list[str], budget: str) -> dict[Labels, str]:
    """Return the arm with the best mean validation score, by label count.

    Arms with unfinished or failed runs need MIN_UNITS finished ones.
    """
    found = {}
    for labels in transfer.labels:
        means = {}
        for arm in arms:
            group = transfer.group(arm, budget, labels)
            values = [run.val for run in group if run.test is not None]
            if values and None not in values and len(values) >= min(MIN_UNITS, len(group)):
                means[arm] = transfer.sign * statistics.fmean(values)
        if means:
            found[labels] = max(means, key=means.__getitem__)
    return found


def selected(transfer: Transfer, first: Comparison) -> dict[str, dict[Labels, str]]:
    """Return the best arm of each role by label count, at the budget of the headline's comparison.

    Both are empty if the arm of the headline does not use the pretrained weights.
    """
    if role(transfer.config["arm"][first.arm]) is not None:
        return {STRONGEST: {}, UNTOUCHED: {}}
    return {
        wanted: best_on_validation(transfer, candidates(transfer, first.budget, wanted), first.budget)
        for wanted in (STRONGEST, UNTOUCHED)
    }


def added(transfer: Transfer, planned: list[Comparison]) -> list[Comparison]:
    """Return a comparison of the headline's arm with the best of each role, by label count, unless it is planned."""
    if not planned:
        return []
    first = planned[0]
    known = {comparison[:4] for comparison in planned}
    return [
        Comparison(first.arm, against, first.budget, labels, wanted)
        for wanted, found in selected(transfer, first).items()
        for labels, against in found.items()
        if (first.arm, against, first.budget, labels) not in known
    ]
