"""Rows that stand in two parts of one data set: copies of training rows among those that validate or test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from warmstart import screen
from warmstart.contracts import Preprocessor, Rows, Splits
from warmstart.data.duplicates import ArrayRows, to_keys

FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Comparison(Protocol):
    """How raw inputs of a modality are compared; a preprocessor's `comparison()` makes one, or `ArrayRows` does."""

    def keys(self, x: Any) -> np.ndarray:
        """Return 64 bits for each row (N,), which rows that are copies have in common."""

    def by_chance(self, seen: Any, x: Any) -> np.ndarray:
        """Return which rows of `x` (N,) may equal a seen one by chance; they are not counted."""

    def near(self, seen: Any, parts: list[Any]) -> list[list[int]] | None:
        """Return the rows of each part that are nearly seen ones; None where the search would take too long."""

    def shown(self, x: Any, row: int) -> str:
        """Return what a message calls a row, besides its number."""


def parts_of(splits: Splits) -> dict[str, Rows]:
    """Return all labelled rows by the names of their parts."""
    shifts = {f"test_{name}": rows for name, rows in splits.shifts.items()}
    return {"train": splits.train, "validation": splits.validation, "test": splits.test, **shifts}


def shared_rows(parts: Mapping[str, Rows], preprocessor: Preprocessor, target: str | None) -> dict[str, dict[str, Any]]:
    """Find the held-out rows that are also training rows, and the test rows that are also validation rows.

    Shifted test parts are changed copies of the test part, so they are compared with the training rows alone.

    Args:
        parts: rows of train, validation, test and test_<shift>, or some of these.
        preprocessor: says how rows are compared; it need not be fitted.
        target: the kind of target.

    Returns:
        For each two parts that share rows, such as train/test: `rows` of the second one, how many of them are `exact`
        copies and how many `near` ones (None: not searched for), how many exact ones have only an `other_target`, for
        questions how many others have the `same_context`, and the `first` of them, numbered from 1.
    """
    comparison: Comparison = getattr(preprocessor, "comparison", ArrayRows)()
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    keys = {name: comparison.keys(rows.x) for name, rows in parts.items()}
    held_out = {"train": [name for name in parts if name != "train"], "validation": [n for n in parts if n == "test"]}
    found = {}
    for seen, others in held_out.items():
        if seen not in parts or not others:
            continue
        near = comparison.near(parts[seen].x, [parts[name].x for name in others])
        if near is None:
            screen.say(
                f"the {len(parts[seen]):,} rows of {seen} are too many to search for near copies; exact ones are"
            )
        for name, rows in zip(others, near or [None] * len(others)):
            theirs, ours = parts[seen], parts[name]
            exact = np.flatnonzero(np.isin(keys[name], keys[seen]))
            if len(exact):
                exact = exact[~comparison.by_chance(theirs.x, _taken(ours.x, exact))]
            shared = {"rows": len(ours), "exact": len(exact), "near": None if rows is None else 0}
            others_too = np.setdiff1d(np.array(rows or [], dtype=np.int64), exact)
            if rows is not None:
                shared["near"] = len(others_too)
            if ours.y is not None and theirs.y is not None:
                same = np.isin(_joint(keys[name][exact], ours.y[exact]), _joint(keys[seen], theirs.y))
                shared["other_target"] = int((~same).sum())
            if target == "span":
                context = np.isin(*(comparison.keys(part.x[["pair"]]) for part in (ours, theirs)))
                context[exact] = False
                shared["same_context"] = int(context.sum())
                others_too = np.union1d(others_too, np.flatnonzero(context))
            if len(exact) or len(others_too):
                row = int(exact[0] if len(exact) else others_too[0])
                shared["first"] = {"row": row + 1, "shown": comparison.shown(ours.x, row)}
                if len(exact):
                    equal = int(np.flatnonzero(keys[seen] == keys[name][row])[0])
                    shared["first"] |= {"equals": equal + 1, "as": comparison.shown(theirs.x, equal)}
                found[f"{seen}/{name}"] = shared
    return found


def _taken(x: Any, rows: np.ndarray) -> Any:
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]


def _joint(keys: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return 64 bits for each row and its target (N,)."""
    if y.dtype == object:
        targets = to_keys(hashlib.blake2b(repr(one).encode(), digest_size=8).digest() for one in y)
    else:
        targets = ArrayRows().keys(y)
    return keys * FACTOR + targets
