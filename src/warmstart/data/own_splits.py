"""The splits train, validation and test that a user's data set brings, and what is cut where it lacks some."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from warmstart import screen
from warmstart.contracts import Rows, UserError
from warmstart.data.splits import split_rows
from warmstart.data.texts import read_splits

HELD_OUT = ("validation", "test")
SHIFT = "test_"  # what begins the name of a shifted test split


def read_own_splits(root: str, config: str | None) -> dict[str, pd.DataFrame]:
    """The tables of the splits train, validation, test and test_<shift>; where there is one split only, it is train.

    Args:
        root: as `read_splits`.
        config: of a hub name that has several.

    Raises:
        UserError: there are several splits, none of them train; or as `read_splits`.
    """
    frames = read_splits(root, config)
    if len(frames) > 1 and "train" not in frames:
        raise UserError(f"data.root={root} has no split train: it has {', '.join(frames)}")
    if len(frames) == 1:
        return {"train": next(iter(frames.values()))}
    shifts = [name for name in frames if name.startswith(SHIFT)]
    return {name: frames[name] for name in ("train", *HELD_OUT, *shifts) if name in frames}


def parts_of(
    split: np.ndarray,
    given: Collection[str],
    root: str,
    seed: int,
    strata: Callable[[np.ndarray], np.ndarray | None],
) -> list[np.ndarray]:
    """The row numbers that train, validate and test; which of these parts is empty is cut from the training rows.

    Args:
        split: the name of each row's split (N,).
        given: the splits that the data set has, with targets or without.
        root: what the user calls the data set.
        seed: fixes what is cut.
        strata: class numbers of training rows, by their row numbers, whose shares every part keeps, or None.
    """
    train, *held_out = (np.flatnonzero(split == name) for name in ("train", *HELD_OUT))
    if all(map(len, held_out)):
        return [train, *held_out]
    for name, index in zip(HELD_OUT, held_out):
        if name in given and not len(index):
            screen.say(f"data.root={root}: the split {name} has no targets; it is cut from the training rows")
    cut = split_rows(Rows(train), (), seed, strata(train))
    spare = [part.x for part, index in zip((cut.validation, cut.test), held_out) if len(index)]
    held_out = [index if len(index) else part.x for part, index in zip((cut.validation, cut.test), held_out)]
    return [np.sort(np.concatenate([cut.train.x, *spare])), *held_out]


def report_splits(split: np.ndarray) -> None:
    """Print the size of each split, and which ones are cut from the training rows.

    Args:
        split: the name of each row's split (N,).
    """
    names, counts = np.unique(split, return_counts=True)
    sizes = dict(zip(names, counts))
    order = [name for name in ("train", *HELD_OUT, *sizes) if name in sizes]
    found = ", ".join(f"{name} {sizes[name]:,}" for name in dict.fromkeys(order))
    lost = " and ".join(name for name in HELD_OUT if name not in sizes)
    cut = f"; {lost} {'are' if ' ' in lost else 'is'} cut from the training rows" if lost else ""
    screen.say(f"splits found: {found}{cut}")


def shifts_of(split: np.ndarray) -> dict[str, np.ndarray]:
    """The row numbers of each shifted test split, by what follows `test_` in its name.

    Args:
        split: the name of each row's split (N,).
    """
    names = sorted({name for name in split if name.startswith(SHIFT)})
    return {name.removeprefix(SHIFT): np.flatnonzero(split == name) for name in names}
