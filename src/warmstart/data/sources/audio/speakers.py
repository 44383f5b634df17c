"""Speakers of recordings: who is in which part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from warmstart.core import screen
from warmstart.core.errors import UserError

SHARE = 0.15  # of the speakers that test, and again of the others that validate
NAMED = 5


def checked(names: np.ndarray, rows: Sequence[int], where: str, column: str) -> np.ndarray:
    """The same names of speakers (N,).

    Raises:
        UserError: some are missing; the first row is named.
    """
    missing = np.flatnonzero(names == None)  # noqa: E711, element by element
    if len(missing):
        raise UserError(
            f"{where}: {len(missing):,} of {len(names):,} rows have no speaker (column {column}), the first is row "
            f"{rows[missing[0]]}: name them, remove these rows, or set data.speaker=null"
        )
    return names


def cut(speakers: np.ndarray, rows: np.ndarray, seed: int, column: str) -> list[np.ndarray]:
    """Parts of the rows that train, validate and test, none of which shares a speaker with another.

    Raises:
        UserError: there are fewer than three speakers.
    """
    count = len(set(speakers[rows]))
    if count < 3:
        raise UserError(
            f"data.speaker={column}: there are {count} speakers, and 3 are needed, one for each part: set "
            "data.speaker=null to split by rows"
        )
    rest, parts = rows, []
    for _ in range(2):
        splitter = GroupShuffleSplit(1, test_size=SHARE, random_state=seed)
        kept, held = next(splitter.split(rest, groups=speakers[rest]))
        parts.append(rest[held])
        rest = rest[kept]
    return [rest, parts[1], parts[0]]


def report_unlabelled(speakers: np.ndarray, known: np.ndarray, column: str) -> None:
    """Warn of speakers none of whose rows has a target.

    Args:
        speakers: of every row (N,).
        known: whether each row has a target (N,).
        column: what the user calls the speakers.
    """
    lost = sorted(set(speakers) - set(speakers[known]))
    if lost:
        named = ", ".join(lost[:NAMED]) + (", ..." if len(lost) > NAMED else "")
        what = f"{len(lost):,} of {len(set(speakers)):,} speakers have no row with a target"
        screen.say(f"warning: data.speaker={column}: {what}: {named}", style="yellow")


def report_shared(speakers: np.ndarray, index: Mapping[str, np.ndarray], column: str) -> None:
    """Warn of speakers who train and are in another part as well.

    Args:
        speakers: of every row (N,).
        index: the row numbers of each part.
        column: what the user calls the speakers.
    """
    train = set(speakers[index["train"]])
    for name, rows in index.items():
        shared = sorted(train & set(speakers[rows])) if name != "train" else []
        if shared:
            named = ", ".join(shared[:NAMED]) + (", ..." if len(shared) > NAMED else "")
            what = f"{len(shared):,} of {len(set(speakers[rows])):,} speakers of the split {name} are in train as well"
            screen.say(f"warning: data.speaker={column}: {what}: {named}", style="yellow")
