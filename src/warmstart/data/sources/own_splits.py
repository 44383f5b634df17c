"""The splits train, validation and test that a user's data set brings, and what is cut where it lacks some."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from warmstart.core import screen
from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.data.readers.splits import SHIFT, describe, read_splits
from warmstart.data.readers.table import Dialect
from warmstart.data.splits import check_classes, split_rows

HELD_OUT = ("validation", "test")


def read_own_splits(root: str, config: str | None, dialect: Dialect | None = None) -> dict[str, pd.DataFrame]:
    """Read the tables of the splits train, validation, test and test_<shift>; a single split is train.

    What was found is printed, and which other splits are not used.

    Args:
        root: as `read_splits`.
        config: of a hub name that has several.
        dialect: how tables are written.

    Raises:
        UserError: there are several splits, none of them train; or as `read_splits`.
    """
    frames = read_splits(root, config, dialect=dialect)
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
    """Print the splits that were found, with their rows, and which are cut from the training rows."""
    lost = " and ".join(name for name in HELD_OUT if name not in rows)
    cut = f"; {lost} {'are' if ' ' in lost else 'is'} cut from the training rows" if lost else ""
    screen.say(f"splits found: {', '.join(f'{name} {count:,}' for name, count in rows.items())}{cut}")


def with_target(known: np.ndarray, split: np.ndarray, root: str, columns: Collection[str]) -> np.ndarray:
    """Return which rows have a target (N,), and print how many do not.

    Args:
        known: whether each row has one (N,).
        split: the name of each row's split (N,).
        root: what the user calls the data set.
        columns: that hold the target.

    Raises:
        UserError: no row to train on has one.
    """
    what = f"column {', '.join(columns)}"
    if not known[split == "train"].any():
        raise UserError(f"data.root={root}: {what} is empty in every row to train on")
    missing = int((~known).sum())
    if missing:
        held_out = int((~known & (split != "train")).sum())
        others = f", but for {held_out:,} of held-out splits, which are left out" if held_out else ""
        screen.say(f"{missing:,} of {len(known):,} rows have no target ({what}): they serve pretraining alone{others}")
    return known


def to_splits(
    rows: Rows,
    labels: tuple[str, ...],
    split: np.ndarray,
    given: Collection[str],
    root: str,
    seed: int,
    strata: Callable[[np.ndarray], np.ndarray | None],
    unlabelled: Rows | None = None,
) -> Splits:
    """Return rows in their own splits, what is lacking being cut from those that train.

    Args:
        rows: all rows with a target.
        labels: the names of the classes or targets.
        split: the name of each row's split (N,).
        given: the splits that the data set has, with targets or without.
        root: what the user calls the data set.
        seed: fixes what is cut.
        strata: class numbers of training rows, by their row numbers, whose shares every part keeps, or None.
        unlabelled: rows to pretrain on as well.

    Raises:
        UserError: a class is in no row to train on, or has too few rows.
    """
    train, *held_out = (np.flatnonzero(split == name) for name in ("train", *HELD_OUT))
    is_split = not all(map(len, held_out))
    if rows.classes is not None:
        check_in_training(rows.y, labels, split, given, root)
        check_classes(rows.y[train], labels, is_split)
    if is_split:
        for name, index in zip(HELD_OUT, held_out):
            if name in given and not len(index):
                screen.say(f"data.root={root}: the split {name} has no targets; it is cut from the training rows")
        cut = split_rows(Rows(train), (), seed, strata(train))
        spare = [part.x for part, index in zip((cut.validation, cut.test), held_out) if len(index)]
        held_out = [index if len(index) else part.x for part, index in zip((cut.validation, cut.test), held_out)]
        train = np.sort(np.concatenate([cut.train.x, *spare]))
    splits = Splits(*(rows.take(index) for index in (train, *held_out)), labels=labels, unlabelled=unlabelled)
    if rows.y is not None:
        shifts = sorted({name for name in split if name.startswith(SHIFT)})
        splits.shifts = {name.removeprefix(SHIFT): rows.take(np.flatnonzero(split == name)) for name in shifts}
    return splits


def check_in_training(
    y: np.ndarray, labels: tuple[str, ...], split: np.ndarray, given: Collection[str], root: str
) -> None:
    """Refuse classes that only rows of a held-out split have; the first is named."""
    unseen = ~np.isin(y, y[split == "train"])
    if unseen.any():
        where = describe(root, split[unseen][0], given)
        raise UserError(f"{where}: class {labels[y[unseen][0]]} is in no row of the split train")
