"""The strongest control and the initial weights without finetuning, selected on validation data, never on test."""

from __future__ import annotations

import os
import statistics
from dataclasses import replace
from typing import Any, NamedTuple

from warmstart.core.init import Init
from warmstart.report.paired import MIN_UNITS
from warmstart.report.runs import Labels, Transfer

STRONGEST, UNTOUCHED = "strongest", "untouched"
CONSTANT = "majority"  # the baseline with a constant prediction
NAMES = {STRONGEST: "strongest control", UNTOUCHED: "initial weights without finetuning"}
SHORT_NAMES = {STRONGEST: "strongest control", UNTOUCHED: "no finetuning"}  # in tables


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
    if is_constant(node):
        return None
    if init is None or Init.parse(str(init)).is_scratch:
        return STRONGEST
    return UNTOUCHED if baseline is not None else None


def is_constant(node: dict[str, Any]) -> bool:
    """Return whether the config of an arm is that of a constant prediction."""
    baseline = node.get("baseline")
    return (baseline if isinstance(baseline, str | None) else baseline["_target_"].split(".")[-2]) == CONSTANT


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


def selected(transfer: Transfer, arm: str, budget: str) -> dict[str, dict[Labels, str]]:
    """Return the best arm of each role by label count, for a comparison with an arm at a budget.

    An arm of role UNTOUCHED has the same initial weights. Both are empty if the arm does not use pretrained weights.
    """
    nodes = transfer.config["arm"]
    if role(nodes[arm]) is not None:
        return {STRONGEST: {}, UNTOUCHED: {}}
    arms = {wanted: candidates(transfer, budget, wanted) for wanted in (STRONGEST, UNTOUCHED)}
    arms[UNTOUCHED] = [name for name in arms[UNTOUCHED] if weights(nodes[name]) == weights(nodes[arm])]
    return {wanted: best_on_validation(transfer, found, budget) for wanted, found in arms.items()}


def weights(node: dict[str, Any]) -> Init:
    """Return the initial weights of an arm, with an absolute path if it is that of a folder."""
    init = Init.parse(str(node.get("init")))
    return replace(init, path=os.path.realpath(init.path)) if os.path.isdir(init.path) else init


def added(transfer: Transfer, planned: list[Comparison]) -> list[Comparison]:
    """Return comparisons with the best of each role, by label count, unless they are planned.

    They are those of the headline's arm, or of all starts with transfer.starts, of which the headline names the best.
    """
    arms = [(first.arm, first.budget) for first in planned[:1]]
    if transfer.starts:
        arms = [(arm, transfer.budgets[0]) for arm in transfer.starts["given"] if arm in transfer.arms]
    known = {(frozenset((one.arm, one.against)), one.budget, one.labels) for one in planned}
    return [
        Comparison(arm, against, budget, labels, wanted)
        for arm, budget in arms
        for wanted, found in selected(transfer, arm, budget).items()
        for labels, against in found.items()
        if (frozenset((arm, against)), budget, labels) not in known
    ]
