"""Split recordings by speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from warmstart.core import screen
from warmstart.core.errors import UserError

SHARE = 0.15  # share of the speakers for test, and of the others for validation
NAMED = 5


def check(names: np.ndarray, rows: Sequence[int], where: str, column: str) -> np.ndarray:
    """Check that all rows have a speaker; return the names (N,).

    Raises:
        UserError: speakers are missing.
    """
    missing = np.flatnonzero(names == None)  # noqa: E711, element by element
    if len(missing):
        raise UserError(
            f"{where}: {len(missing):,} of {len(names):,} rows have no speaker (column {column}), the first is row "
            f"{rows[missing[0]]}: name them, remove these rows, or set data.speaker=null"
        )
    return names


def split(speakers: np.ndarray, rows: np.ndarray, seed: int, column: str) -> list[np.ndarray]:
    """Split rows into train, validation and test rows with different speakers.

    Raises:
        UserError: there are fewer than three speakers.
    """
    count = len(set(speakers[rows]))
    if count < 3:
        raise UserError(
            f"data.speaker={column}: there are {count} speakers, but 3 are needed, one for each part: set "
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
    """Print a warning about speakers without any row that has a target.

    Args:
        speakers: speaker of each row (N,).
        known: whether each row has a target (N,).
        column: name of the column of speakers.
    """
    unknown = sorted(set(speakers) - set(speakers[known]))
    if unknown:
        named = ", ".join(unknown[:NAMED]) + (", ..." if len(unknown) > NAMED else "")
        what = f"{len(unknown):,} of {len(set(speakers)):,} speakers have no row with a target"
        screen.say(f"warning: data.speaker={column}: {what}: {named}", style="yellow")


def report_shared(speakers: np.ndarray, index: Mapping[str, np.ndarray], column: str) -> None:
    """Print a warning about speakers that are in train and in another split.

    Args:
        speakers: speaker of each row (N,).
        index: row indices of each split.
        column: name of the column of speakers.
    """
    train = set(speakers[index["train"]])
    for name, rows in index.items():
        shared = sorted(train & set(speakers[rows])) if name != "train" else []
        if shared:
            named = ", ".join(shared[:NAMED]) + (", ..." if len(shared) > NAMED else "")
            what = f"{len(shared):,} of {len(set(speakers[rows])):,} speakers of the split {name} are also in train"
            screen.say(f"warning: data.speaker={column}: {what}: {named}", style="yellow")
