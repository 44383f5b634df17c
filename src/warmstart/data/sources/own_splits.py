"""Use the splits of a data set, and split off missing ones from the training rows."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from warmstart.core import screen
from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.data.clusters import Clusters
from warmstart.data.readers.files import listed
from warmstart.data.readers.splits import SHIFT, describe, read_splits
from warmstart.data.readers.table import Dialect
from warmstart.data.splits import check_classes, split_rows, strata_of

HELD_OUT = ("validation", "test")
INDEPENDENT = Clusters()


def read_own_splits(root: str, config: str | None, dialect: Dialect | None = None) -> dict[str, pd.DataFrame]:
    """Read the tables of the splits train, validation, test and test_<shift>; see `own_splits` and `read_splits`."""
    return own_splits(read_splits(root, config, dialect=dialect), root)


def own_splits(frames: dict[str, pd.DataFrame], root: str) -> dict[str, pd.DataFrame]:
    """Return the tables of the splits train, validation, test and test_<shift>; a single split is train.

    Prints the splits that are used, and warnings about others.

    Raises:
        UserError: there are several splits, but no train.
    """
    if len(frames) == 1:
        ((name, frame),) = frames.items()
        if name not in ("all", "train"):
            screen.say(f"data.root={root}: {name} is the only split; it is used as train")
        return {"train": frame}
    if "train" not in frames:
        raise UserError(f"data.root={root} has no split train: it has {', '.join(frames)}")
    shifts = [name for name in frames if name.startswith(SHIFT)]
    used = {name: frames[name] for name in ("train", *HELD_OUT, *shifts) if name in frames}
    note_splits({name: len(frame) for name, frame in used.items()})
    for name in frames.keys() - used.keys():
        screen.say(f"warning: the split {name} ({len(frames[name]):,} rows) is not used", style="yellow")
    return used


def note_splits(rows: dict[str, int]) -> None:
    """Print the splits with their numbers of rows, and which are split off from the training rows."""
    missing = " and ".join(name for name in HELD_OUT if name not in rows)
    cut = f"; {missing} {'are' if ' ' in missing else 'is'} taken from the training rows" if missing else ""
    screen.say(f"splits found: {', '.join(f'{name} {count:,}' for name, count in rows.items())}{cut}")


def with_target(known: np.ndarray, split: np.ndarray, root: str, columns: Collection[str]) -> np.ndarray:
    """Return `known`, whether each row has a target (N,), and print how many rows do not.

    Raises:
        UserError: no training row has a target.
    """
    what = f"column {', '.join(columns)}"
    if not known[split == "train"].any():
        raise UserError(f"data.root={root}: {what} is empty in every training row")
    missing = int((~known).sum())
    if missing:
        held_out = int((~known & (split != "train")).sum())
        others = f", except {held_out:,} of held-out splits, which are not used" if held_out else ""
        screen.say(
            f"{missing:,} of {len(known):,} rows have no target ({what}): they are used in pretraining only{others}"
        )
    return known


def split_table(
    x: pd.DataFrame | np.ndarray,
    targets: dict[str, pd.DataFrame],
    columns: Collection[str],
    root: str,
    seed: int,
    encode: Callable[[pd.DataFrame], tuple[np.ndarray | None, tuple[str, ...]]],
    clusters: Clusters = INDEPENDENT,
    names: Collection[np.ndarray | None] = (),
) -> Splits:
    """Return the splits of a table; rows without a target are for pretraining only, missing splits as in `to_splits`.

    If clusters are kept in one split, rows without a target of clusters in validation or test are not used.

    Args:
        x: inputs of all rows, in the order of the splits.
        targets: raw targets by split; their first column is the one to stratify by.
        encode: returns the targets (N, ...) and their labels.
        clusters: settings of the clusters.
        names: clusters of the rows of each split, or None.

    Raises:
        UserError: no training row has a target, all rows are of one cluster, or as in `to_splits`.
    """
    table = pd.concat(targets.values(), ignore_index=True)
    split = np.repeat(list(targets), [len(part) for part in targets.values()])
    known = with_target(table.notna().all(axis=1).to_numpy(), split, root, columns)
    cluster = clusters.joined(names)
    spare = Rows(x, cluster=cluster).take(np.flatnonzero(~known & (split == "train")))
    table, split, x = table[known].reset_index(drop=True), split[known], x[known]
    y, labels = encode(table)
    x = x.reset_index(drop=True) if isinstance(x, pd.DataFrame) else x
    rows = Rows(x, y, None if cluster is None else cluster[known])

    def strata(train: np.ndarray) -> np.ndarray | None:
        return strata_of(table.iloc[train, 0], root) if table.shape[1] else None

    splits = to_splits(rows, labels, split, targets, root, seed, strata, spare, clusters)
    if clusters.are_kept:
        held = [name for part in (splits.validation, splits.test, *splits.shifts.values()) for name in part.cluster]
        splits.unlabelled = spare.take(np.flatnonzero(~np.isin(spare.cluster, held)))
        if unused := len(spare) - len(splits.unlabelled):
            screen.say(f"{unused:,} rows without a target are of clusters in validation or test: they are not used")
    return splits


def to_splits(
    rows: Rows,
    labels: tuple[str, ...],
    split: np.ndarray,
    given: Collection[str],
    root: str,
    seed: int,
    strata: Callable[[np.ndarray], np.ndarray | None],
    unlabelled: Rows | None = None,
    clusters: Clusters = INDEPENDENT,
) -> Splits:
    """Return splits of rows; missing splits are split off from the training rows, by row or by cluster.

    Args:
        split: name of the split of each row (N,).
        given: splits of the data set, with or without targets.
        strata: function of training row indices that returns class indices to stratify by, or None.
        unlabelled: further rows for pretraining.
        clusters: settings of the clusters.

    Raises:
        UserError: a class has no training rows, or too few rows; or as in `Clusters.split` and `Clusters.check`.
    """
    train, *held_out = (np.flatnonzero(split == name) for name in ("train", *HELD_OUT))
    is_split = not all(map(len, held_out))
    if rows.classes is not None:
        check_in_training(rows.y, labels, split, given, root)
        check_classes(rows.y[train], labels, is_split)
    if is_split:
        for name, rows_of_split in zip(HELD_OUT, held_out):
            if name in given and not len(rows_of_split):
                screen.say(f"data.root={root}: the split {name} has no targets; it is taken from the training rows")
    index = dict(zip(("train", *HELD_OUT), (train, *held_out)))
    missing = [name for name in HELD_OUT if not len(index[name])]
    if clusters.are_kept:
        index |= clusters.split(rows.cluster, train, seed, missing)
    elif missing:
        cut = split_rows(Rows(train), (), seed, strata(train))
        index |= {name: getattr(cut, name).x for name in missing}
        index["train"] = np.setdiff1d(train, np.concatenate([index[name] for name in missing]))
    shifts = sorted({name for name in split if name.startswith(SHIFT)}) if rows.y is not None else []
    shifted = {name: np.flatnonzero(split == name) for name in shifts}
    if clusters.are_kept:
        clusters.check(rows.cluster, {**index, **shifted})
        if rows.classes is not None:
            check_class_rows({**index, **shifted}, rows.y, labels, root, clusters.remedy())
    splits = Splits(*(rows.take(index[name]) for name in ("train", *HELD_OUT)), labels=labels, unlabelled=unlabelled)
    splits.shifts = {name.removeprefix(SHIFT): rows.take(found) for name, found in shifted.items()}
    return splits


def check_class_rows(
    index: dict[str, np.ndarray], y: np.ndarray, labels: tuple[str, ...], root: str, remedy: str = ""
) -> None:
    """Check that all classes have training rows; print a warning if they are missing in other splits.

    Args:
        index: rows of each split.
        remedy: what to do, for the end of a message.

    Raises:
        UserError: a class has no training rows, or a split has no rows.
    """
    for name, rows in index.items():
        missing = [labels[number] for number in np.setdiff1d(np.arange(len(labels)), y[rows])]
        shown = listed(missing)
        if name == "train" and missing:
            raise UserError(f"data.root={root}: no row to train on is of class {shown}{remedy}")
        if not len(rows):
            raise UserError(f"data.root={root}: no row of the split {name} has a class{remedy}")
        if missing:
            screen.say(f"warning: the split {name} has no row of class {shown}{remedy}", style="yellow")


def check_in_training(
    y: np.ndarray, labels: tuple[str, ...], split: np.ndarray, given: Collection[str], root: str
) -> None:
    """Raise UserError if a class is in held-out splits only."""
    unseen = ~np.isin(y, y[split == "train"])
    if unseen.any():
        where = describe(root, split[unseen][0], given)
        raise UserError(f"{where}: class {labels[y[unseen][0]]} is not in the split train")
