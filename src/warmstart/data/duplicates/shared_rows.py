"""Find rows that are in two parts of a data set: copies of training rows in validation or test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from warmstart.core import screen
from warmstart.core.batch import Rows, Splits
from warmstart.core.protocols import Preprocessor
from warmstart.data.duplicates.overlap import FACTOR, ArrayRows, to_keys


class Comparison(Protocol):
    """Comparison of raw inputs of a modality; that of a preprocessor, or `ArrayRows`."""

    def keys(self, x: Any) -> np.ndarray:
        """Return a 64-bit hash of each row (N,), equal for copies."""

    def by_chance(self, seen: Any, x: Any) -> np.ndarray:
        """Return which rows of `x` (N,) may equal a row of `seen` by chance; these are not counted."""

    def near(self, seen: Any, parts: list[Any]) -> list[list[int]] | None:
        """Return the rows of each part that are near duplicates of `seen`; None if the search would take too long."""

    def shown(self, x: Any, row: int) -> str:
        """Return a description of a row for messages, besides its number."""


def parts_of(splits: Splits) -> dict[str, Rows]:
    """Return all labelled rows by part."""
    shifts = {f"test_{name}": rows for name, rows in splits.shifts.items()}
    return {"train": splits.train, "validation": splits.validation, "test": splits.test, **shifts}


def shared_rows(parts: Mapping[str, Rows], preprocessor: Preprocessor, target: str | None) -> dict[str, dict[str, Any]]:
    """Find the held-out rows that are also training rows, and the test rows that are also validation rows.

    Shifted test parts are changed copies of the test part, so they are compared with the training rows only.

    Args:
        parts: rows of train, validation, test and test_<shift>, or some of these.
        preprocessor: has the comparison of rows; it need not be fitted.
        target: kind of target.

    Returns:
        For each pair of parts that share rows, such as train/test: number of `rows` of the second part, number of
        `exact` copies and of `near` ones (None if not searched for), number of exact copies with an `other_target`, for
        questions number of other rows with the `same_context`, and the `first` of these rows, numbered from 1.
    """
    comparison: Comparison = preprocessor.comparison() or ArrayRows()
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    keys = {name: comparison.keys(rows.x) for name, rows in parts.items()}
    held_out = {"train": [name for name in parts if name != "train"], "validation": [n for n in parts if n == "test"]}
    found = {}
    for seen, others in held_out.items():
        if seen not in parts or not others:
            continue
        near = comparison.near(parts[seen].x, [parts[name].x for name in others])
        if near is None:
            screen.say(f"the {len(parts[seen]):,} rows of {seen} are too many to search for near copies")
        for name, rows in zip(others, near or [None] * len(others)):
            shared = _compare(comparison, parts[seen], parts[name], (keys[seen], keys[name]), rows, target)
            if shared is not None:
                found[f"{seen}/{name}"] = shared
    return found


def _compare(
    comparison: Comparison,
    theirs: Rows,
    ours: Rows,
    keys: tuple[np.ndarray, np.ndarray],
    near: list[int] | None,
    target: str | None,
) -> dict[str, Any] | None:
    """Return the result of `shared_rows` for two parts, from keys and near duplicates; None if no rows are shared."""
    exact = np.flatnonzero(np.isin(keys[1], keys[0]))
    others = np.setdiff1d(np.array(near or [], dtype=np.int64), exact)
    exact, others = (_not_by_chance(comparison, theirs.x, ours.x, rows) for rows in (exact, others))
    shared = {"rows": len(ours), "exact": len(exact), "near": None if near is None else len(others)}
    equal = np.flatnonzero(np.isin(keys[0], keys[1][exact]))
    if ours.y is not None and theirs.y is not None:
        same = np.isin(_joint(keys[1], ours.y, exact), _joint(keys[0], theirs.y, equal))
        shared["other_target"] = int((~same).sum())
    if target == "span":
        context = np.isin(*(comparison.keys(part.x[["pair"]]) for part in (ours, theirs)))
        context[np.union1d(exact, others)] = False
        shared["same_context"] = int(context.sum())
        others = np.union1d(others, np.flatnonzero(context))
    if not len(exact) + len(others):
        return None
    row = int(exact[0] if len(exact) else others[0])
    first = {"row": row + 1, "shown": comparison.shown(ours.x, row)}
    if len(exact):
        other = int(equal[keys[0][equal] == keys[1][row]][0])
        first |= {"equals": other + 1, "as": comparison.shown(theirs.x, other)}
    return {**shared, "first": first}


def _not_by_chance(comparison: Comparison, seen: Any, x: Any, rows: np.ndarray) -> np.ndarray:
    """Return the indices `rows` of `x` without rows that may be equal by chance."""
    return rows[~comparison.by_chance(seen, Rows(x).take(rows).x)] if len(rows) else rows


def _joint(keys: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each of these rows with its target (N,)."""
    if y.dtype == object:
        targets = to_keys(hashlib.blake2b(repr(one).encode(), digest_size=8).digest() for one in y[rows])
    else:
        targets = ArrayRows().keys(y[rows])
    return keys[rows] * FACTOR + targets
