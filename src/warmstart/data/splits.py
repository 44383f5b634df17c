"""Disjoint splits, and nested labelled subsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from warmstart.contracts import Rows, Splits, UserError


def split_rows(
    rows: Rows,
    labels: tuple[str, ...],
    seed: int,
    validation: float = 0.15,
    test: float = 0.15,
    take: Callable[[Any, np.ndarray], Any] = lambda x, index: x[index],
) -> Splits:
    """Train, validation and test parts by share, stratified where `rows.y` holds class numbers (N,).

    Raises:
        UserError: there are too few rows, or a class too small to be in every part.
    """
    count = len(rows)
    stratify = None
    if rows.y is not None and rows.y.dtype.kind == "i":
        sizes = np.bincount(rows.y, minlength=len(labels))
        if (sizes > 0).sum() < 2:
            raise UserError(f"all {count} rows are of one class ({labels[int(sizes.argmax())]}): two are needed")
        small = int(sizes.argmin())
        if sizes[small] < 4:
            raise UserError(f"class {labels[small]} has {sizes[small]} rows: at least 4 are needed to split off a test")
        stratify = rows.y
    if count < 8:
        raise UserError(f"only {count} rows: at least 8 are needed to split off validation and test")
    classes = 0 if stratify is None else len(np.unique(stratify))
    held = [max(round(count * share), classes, 1) for share in (validation, test)]
    kept, test_index = train_test_split(np.arange(count), test_size=held[1], random_state=seed, stratify=stratify)
    train_index, validation_index = train_test_split(
        kept, test_size=held[0], random_state=seed, stratify=None if stratify is None else stratify[kept]
    )
    parts = (
        Rows(take(rows.x, index), None if rows.y is None else rows.y[index])
        for index in (np.sort(train_index), np.sort(validation_index), np.sort(test_index))
    )
    return Splits(*parts, labels=labels)


def labelled_subset(
    y: np.ndarray,
    labels: tuple[str, ...],
    seed: int,
    per_class: int | None = None,
    fraction: float | None = None,
) -> np.ndarray:
    """Sorted row numbers of a labelled subset, nested: with one seed a smaller budget is part of every larger one.

    Class numbers (N,) are sampled class by class; for other targets `fraction` takes a share of all rows.

    Raises:
        UserError: a class has fewer rows than asked for, or both budgets are given.
    """
    if per_class is None and fraction is None:
        return np.arange(len(y))
    if per_class is not None and fraction is not None:
        raise UserError("give data.labels_per_class or data.label_fraction, not both")
    generator = np.random.default_rng(seed)
    if y.dtype.kind != "i":
        if per_class is not None:
            raise UserError("data.labels_per_class needs classes: use data.label_fraction with this objective")
        return np.sort(generator.permutation(len(y))[: max(1, round(len(y) * fraction))])
    chosen = []
    for number, label in enumerate(labels):
        rows = generator.permutation(np.flatnonzero(y == number))
        count = per_class if per_class is not None else max(1, round(len(rows) * fraction))
        if len(rows) < count:
            raise UserError(
                f"class {label} has {len(rows)} training rows, fewer than data.labels_per_class={per_class}"
            )
        chosen.append(rows[:count])
    return np.sort(np.concatenate(chosen))
