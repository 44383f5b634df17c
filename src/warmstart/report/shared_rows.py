"""In words: rows that stand in two parts of a data set, from what a run's record has of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def sentences(overlap: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each two parts that share rows, such as `train/test`."""
    return [sentence(pair, shared) for pair, shared in overlap.items()]


def sentence(pair: str, shared: Mapping[str, Any]) -> str:
    """Return how many rows of the second part are copies of rows of the first one, and what follows."""
    seen, held_out = pair.split("/")
    theirs = "training" if seen == "train" else seen
    exact, near, context = (shared.get(name) or 0 for name in ("exact", "near", "same_context"))
    clauses = []
    if exact:
        other = f" ({shared['other_target']:,} with another target)" if shared.get("other_target") else ""
        clauses.append(f"{_are(exact)} also among the {theirs} rows{other}")
    if near:
        nearly = f"{near:,} nearly {'is' if near == 1 else 'are'}"
        clauses.append(nearly if exact else f"{_are(near)} nearly among the {theirs} rows")
    if context:
        verb = "shares" if context == 1 else "share"
        clauses.append(f"{context:,} {verb} only {'its' if context == 1 else 'their'} context with {theirs} rows")
    first, *rest = clauses
    number, _, words = first.partition(" ")
    counted = " and ".join([f"{number} of {shared['rows']:,} {held_out} rows {words}", *rest])
    effect = f"scores on them {'are' if exact else 'may be'} too good"
    if seen == "validation":
        effect = "the weights are chosen on rows that test them"
    remedy = "keep a context in one part" if context and not exact + near else "remove the copies"
    return f"{counted}; the first is {_first(shared['first'], theirs, held_out)}: {effect}, {remedy}"


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


def _first(first: Mapping[str, Any], theirs: str, held_out: str) -> str:
    """Return the numbers of the first row that is shared, and what it is called or holds."""
    ours, equal = first["shown"], first.get("as")
    named = f"{held_out} row {first['row']:,}"
    if equal is None:
        return f"{named} ({ours})" if ours else named
    if ours != equal:
        return f"{named} ({ours}), {theirs} row {first['equals']:,} ({equal})"
    return f"{named}, {theirs} row {first['equals']:,}" + (f" ({ours})" if ours else "")
