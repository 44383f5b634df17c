"""Warnings about rows that two splits of a data set share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def sentences(overlap: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each pair of splits that share rows, such as `train/test`."""
    return [sentence(pair, shared) for pair, shared in overlap.items()]


def sentence(pair: str, shared: Mapping[str, Any]) -> str:
    """Return the number of duplicate rows, the first of them, the effect on scores, and the remedy."""
    seen, held_out = pair.split("/")
    split = "training" if seen == "train" else seen
    exact, near, context = (shared.get(name) or 0 for name in ("exact", "near", "same_context"))
    clauses = []
    if exact:
        other = f" ({shared['other_target']:,} with another target)" if shared.get("other_target") else ""
        clauses.append(f"{_are(exact)} also among the {split} rows{other}")
    if near:
        duplicates = "a near duplicate" if near == 1 else "near duplicates"
        clauses.append(f"{_are(near)} {duplicates}" + ("" if exact else f" of {split} rows"))
    if context:
        verb = "shares" if context == 1 else "share"
        clauses.append(f"{context:,} {verb} only {'its' if context == 1 else 'their'} context with {split} rows")
    first, *rest = clauses
    number, _, predicate = first.partition(" ")
    counts = " and ".join([f"{number} of {shared['rows']:,} {held_out} rows {predicate}", *rest])
    effect = f"scores on them {'are' if exact else 'may be'} optimistic"
    if seen == "validation":
        effect = "the weights are selected on test rows"
    remedy = "put each context into one split" if context and not exact + near else "remove the duplicates"
    return f"{counts}; the first is {_first(shared['first'], split, held_out)}: {effect}, {remedy}"


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


def _first(first: Mapping[str, Any], split: str, held_out: str) -> str:
    """Return the indices and the content of the first shared row."""
    shown, duplicate = first["shown"], first.get("as")
    named = f"{held_out} row {first['row']:,}"
    if duplicate is None:
        return f"{named} ({shown})" if shown else named
    if shown != duplicate:
        return f"{named} ({shown}), {split} row {first['equals']:,} ({duplicate})"
    return f"{named}, {split} row {first['equals']:,}" + (f" ({shown})" if shown else "")
