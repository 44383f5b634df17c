"""Disjoint splits, nested labelled subsets and folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold, train_test_split

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.labels import most_per_class
from warmstart.data.readers.columns import NUMBER, to_names


def split_rows(
    rows: Rows,
    labels: tuple[str, ...],
    seed: int,
    strata: np.ndarray | None,
    validation: float = 0.15,
    test: float = 0.15,
) -> Splits:
    """Split rows into train, validation and test parts; the split depends on `strata` and `seed` only.

    Args:
        strata: class indices (N,) to stratify by, or None.

    Raises:
        UserError: there are too few rows.
    """
    count = len(rows)
    if count < 10:
        raise UserError(f"only {count} rows: 10 or more are needed to split off validation and test")
    classes = 0 if strata is None else len(np.unique(strata))
    sizes = [max(round(count * share), classes, 2) for share in (validation, test)]
    kept, test_index = train_test_split(np.arange(count), test_size=sizes[1], random_state=seed, stratify=strata)
    train_index, validation_index = train_test_split(
        kept, test_size=sizes[0], random_state=seed, stratify=None if strata is None else strata[kept]
    )
    parts = (rows.take(np.sort(index)) for index in (train_index, validation_index, test_index))
    return Splits(*parts, labels=labels)


def reset_index(splits: Splits) -> Splits:
    """Reset the index of the rows of each part to 0, 1, ..."""
    for rows in (splits.train, splits.validation, splits.test, splits.unlabelled, *splits.shifts.values()):
        if rows is not None:
            rows.x = rows.x.reset_index(drop=True)
    return splits


def encode_labels(names: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class index of each name (N,) and the sorted class names."""
    y, labels = pd.factorize(names, sort=True)
    return y.astype(np.int64), tuple(labels)


def check_classes(y: np.ndarray, labels: tuple[str, ...], is_split: bool = True) -> None:
    """Check that the classes of rows (N,) are two or more, with enough rows to split, if `is_split`.

    Raises:
        UserError: there is only one class, or a class to split has fewer than 4 rows.
    """
    sizes = np.bincount(y, minlength=len(labels))
    if (sizes > 0).sum() < 2:
        raise UserError(f"all {len(y)} rows are of one class ({labels[int(sizes.argmax())]}): two are needed")
    small = int(sizes.argmin())
    if is_split and sizes[small] < 4:
        advice = "; to predict numbers, add objective=regression" if all(map(NUMBER.fullmatch, labels)) else ""
        raise UserError(
            f"class {labels[small]} has {sizes[small]} rows: 4 or more are needed to split off a test{advice}"
        )


def check_readable(splits: Splits, what: str) -> Splits:
    """Check that parts have rows and classes have training rows; return the splits. A row is called `what`.

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
    y: np.ndarray, labels: tuple[str, ...], seed: int, per_class: int | str | None = None, fraction: float | None = None
) -> np.ndarray:
    """Return the sorted row indices of a labelled subset; with the same seed, smaller subsets are part of larger ones.

    Classes are sampled separately; for other targets, `fraction` is a share of all rows. With `per_class` as `<=N`, a
    class with fewer rows gives all of them.

    Raises:
        UserError: a class has fewer rows than `per_class`, or both budgets are given.
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
    most, chosen = most_per_class(per_class), []
    per_class = per_class if most is None else most
    for number, label in enumerate(labels):
        rows = generator.permutation(np.flatnonzero(y == number))
        count = per_class if per_class is not None else max(1, round(len(rows) * fraction))
        if len(rows) < count and most is None:
            raise UserError(
                f"class {label} has {len(rows)} training rows, fewer than data.labels_per_class={per_class}; "
                f"'<={per_class}' uses up to {per_class} of each class"
            )
        chosen.append(rows[:count])
    return np.sort(np.concatenate(chosen))


def fold_of(
    rows: Rows, labels: tuple[str, ...], seed: int, folds: int, fold: int, by_cluster: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted row indices of the training and of the validation rows, by stratified K-fold.

    The validation fold is `fold % folds`, in repeat `fold // folds`, and each repeat has another shuffle. If
    `by_cluster`, no cluster has both training and validation rows.

    Raises:
        UserError: a class has fewer rows (or clusters) than there are folds, or no training rows; without classes,
            there are too few rows (or clusters).
    """
    most, what = most_folds(rows, labels, by_cluster)
    one = "cluster" if by_cluster else "row"
    if folds > most:
        remedy = f"use at most data.folds={most}" if most >= 2 else f"folds need two {one}s or more of each class"
        raise UserError(f"data.folds={folds}: {what} only, but each fold needs one; {remedy}")
    repeat, part = divmod(fold, folds)
    shuffle = {"shuffle": True, "random_state": np.random.RandomState([seed, repeat])}
    numbers = np.arange(len(rows))
    if not by_cluster:
        splitter_class = KFold if rows.classes is None else StratifiedKFold
        return list(splitter_class(folds, **shuffle).split(numbers, rows.classes))[part]
    y = np.zeros(len(rows), dtype=np.int64) if rows.classes is None else rows.classes
    train, held = list(StratifiedGroupKFold(folds, **shuffle).split(numbers, y, groups=rows.cluster))[part]
    absent = np.setdiff1d(y, y[train])
    if len(absent):
        raise UserError(
            f"data.folds={folds}, data.fold={fold}: all clusters with rows of class {labels[absent[0]]} are in the "
            "validation fold: use another data.fold or seed, or fewer folds"
        )
    return train, held


def most_folds(rows: Rows, labels: tuple[str, ...], by_cluster: bool = False) -> tuple[int, str]:
    """Return the maximum number of folds of these rows, and a description of what limits it."""
    labelled = "clusters of labelled rows" if by_cluster else "labelled rows"
    if rows.classes is None:
        count = len(set(rows.cluster)) if by_cluster else len(rows)
        return count, f"there are {count} {labelled}"
    keys = pd.DataFrame({"y": rows.classes, "cluster": rows.cluster if by_cluster else np.arange(len(rows))})
    sizes = np.bincount(keys.drop_duplicates().y)
    smallest = min(np.flatnonzero(sizes), key=lambda number: sizes[number])
    return int(sizes[smallest]), f"class {labels[smallest]} has {sizes[smallest]} {labelled}"


def merged(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, in their order; targets and clusters are None if a part has none."""
    inputs = [part.x for part in parts]
    x = pd.concat(inputs, ignore_index=True) if parts[0].is_frame else np.concatenate(inputs)
    y, cluster = (
        None if any(one is None for one in values) else np.concatenate(values)
        for values in ([part.y for part in parts], [part.cluster for part in parts])
    )
    return Rows(x, y, cluster)


def strata_of(target: pd.Series, where: str) -> np.ndarray | None:
    """Return class indices to stratify by, for any objective; None if the column has rare values or lists.

    Missing targets are a separate class.
    """
    if any(isinstance(cell, list | tuple | dict | np.ndarray) for cell in target):
        return None
    names = ["" if name is None else name for name in to_names(target, where)]
    _, numbers, counts = np.unique(names, return_inverse=True, return_counts=True)
    return numbers if len(counts) > 1 and counts.min() >= 4 else None
