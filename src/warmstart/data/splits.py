"""Disjoint splits, and nested labelled subsets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.data.readers.columns import NUMBER, to_names


def split_rows(
    rows: Rows,
    labels: tuple[str, ...],
    seed: int,
    strata: np.ndarray | None,
    validation: float = 0.15,
    test: float = 0.15,
) -> Splits:
    """Train, validation and test parts by share; the rows of each depend on `strata` and `seed` alone.

    Args:
        rows: all rows.
        labels: the names of the classes or targets.
        seed: fixes the parts.
        strata: class numbers (N,) whose shares every part keeps, or None.
        validation: share of the rows.
        test: share of the rows.

    Raises:
        UserError: there are too few rows.
    """
    count = len(rows)
    if count < 10:
        raise UserError(f"only {count} rows: at least 10 are needed to split off validation and test")
    classes = 0 if strata is None else len(np.unique(strata))
    held = [max(round(count * share), classes, 2) for share in (validation, test)]
    kept, test_index = train_test_split(np.arange(count), test_size=held[1], random_state=seed, stratify=strata)
    train_index, validation_index = train_test_split(
        kept, test_size=held[0], random_state=seed, stratify=None if strata is None else strata[kept]
    )
    parts = (rows.take(np.sort(index)) for index in (train_index, validation_index, test_index))
    return Splits(*parts, labels=labels)


def renumbered(splits: Splits) -> Splits:
    """The same splits, the rows of each part numbered from 0."""
    for rows in (splits.train, splits.validation, splits.test, splits.unlabelled, *splits.shifts.values()):
        if rows is not None:
            rows.x = rows.x.reset_index(drop=True)
    return splits


def class_numbers(names: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the number of each name (N,) among the different ones, and these, sorted."""
    labels = tuple(sorted(set(names)))
    numbers = {label: number for number, label in enumerate(labels)}
    return np.array([numbers[name] for name in names], dtype=np.int64), labels


def check_classes(y: np.ndarray, labels: tuple[str, ...], are_cut: bool = True) -> None:
    """Refuse classes that cannot be in every part.

    Args:
        y: class numbers (N,).
        labels: the names of the classes.
        are_cut: whether parts are cut from these rows.

    Raises:
        UserError: there is one class only, or one with too few rows to be cut: fewer than 4.
    """
    sizes = np.bincount(y, minlength=len(labels))
    if (sizes > 0).sum() < 2:
        raise UserError(f"all {len(y)} rows are of one class ({labels[int(sizes.argmax())]}): two are needed")
    small = int(sizes.argmin())
    if are_cut and sizes[small] < 4:
        advice = "; to predict numbers, add objective=regression" if all(map(NUMBER.fullmatch, labels)) else ""
        raise UserError(
            f"class {labels[small]} has {sizes[small]} rows: at least 4 are needed to split off a test{advice}"
        )


def check_readable(splits: Splits, what: str) -> Splits:
    """Return the same splits, where each part has rows and each class has rows to train on.

    Args:
        splits: without the rows that cannot be read.
        what: a row is.

    Raises:
        UserError: a part is empty, or a class has no training rows.
    """
    parts = {"train": splits.train, "validate": splits.validation, "test": splits.test}
    for name, rows in [*parts.items(), *(("test", rows) for rows in splits.shifts.values())]:
        if not len(rows):
            raise UserError(f"no {what} to {name} on can be read (data.on_error=skip)")
    if splits.train.classes is not None:
        absent = np.setdiff1d(np.arange(len(splits.labels)), splits.train.y)
        if len(absent):
            raise UserError(f"class {splits.labels[absent[0]]} has no {what} to train on that can be read")
    return splits


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
            raise UserError(
                "data.labels_per_class needs classes: use data.label_fraction with this objective, "
                "and in a transfer shares, such as transfer.labels=[0.1,all]"
            )
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


def fold_of(rows: Rows, labels: tuple[str, ...], seed: int, folds: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row numbers that train and that validate, where rows are cut into `folds` parts of like size and classes.

    Part `fold % folds` validates. `fold // folds` is the number of the repeat, each of which is cut anew.

    Args:
        rows: the labelled rows.
        labels: the names of the classes or targets.
        seed: fixes the parts.
        folds: how many parts, 2 or more.
        fold: 0 or more.

    Raises:
        UserError: a class has fewer rows than there are parts, or there are fewer rows where targets are no classes.
    """
    most, what = most_folds(rows, labels)
    if folds > most:
        remedy = f"the largest that fits is data.folds={most}" if most >= 2 else "two rows of each are needed for any"
        raise UserError(f"data.folds={folds}: {what} only, and each fold needs one of them; {remedy}")
    repeat, part = divmod(fold, folds)
    make = KFold if rows.classes is None else StratifiedKFold
    cutter = make(folds, shuffle=True, random_state=np.random.RandomState([seed, repeat]))
    return list(cutter.split(np.arange(len(rows)), rows.classes))[part]


def most_folds(rows: Rows, labels: tuple[str, ...]) -> tuple[int, str]:
    """The most parts that these rows can be cut into, and what they have the fewest of, in words."""
    if rows.classes is None:
        return len(rows), f"there are {len(rows)} labelled rows"
    sizes = np.bincount(rows.classes)
    smallest = min(np.flatnonzero(sizes), key=lambda number: sizes[number])
    return int(sizes[smallest]), f"class {labels[smallest]} has {sizes[smallest]} labelled rows"


def strata_of(target: pd.Series, where: str) -> np.ndarray | None:
    """Return class numbers to stratify by, whatever the objective makes of the column.

    Missing targets are a class of their own. None is returned where the column has rare values, or lists.
    """
    if any(isinstance(cell, list | tuple | dict | np.ndarray) for cell in target):
        return None
    names = ["" if name is None else name for name in to_names(target, where)]
    _, numbers, counts = np.unique(names, return_inverse=True, return_counts=True)
    return numbers if len(counts) > 1 and counts.min() >= 4 else None
