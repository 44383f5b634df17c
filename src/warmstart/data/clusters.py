"""Names of clusters of rows that are not independent, such as the recordings of a speaker, and splits by cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.readers.columns import pick, to_names
from warmstart.data.readers.files import listed

SHARE = 0.15  # share of the clusters for test, and of the others for validation
PART = re.compile(r"(\d+)/(\d+)", re.ASCII)
LONGEST = 60  # characters of a name

Split = Literal["row", "cluster"]
Chosen = list[str | int] | str


class Clusters:
    """The settings of a source that name the clusters of its rows, and split by them.

    Args:
        column: column with the cluster of each row; None if the rows are independent.
        split: cluster to keep each cluster in one split, row to split rows; None for cluster if there is a column.
        test: clusters of the test split: names, or a part of all clusters, such as 1/3; None for 15 % at random.

    Raises:
        UserError: a setting needs another one, or is invalid.
    """

    def __init__(self, column: str | int | None = None, split: Split | None = None, test: Chosen | None = None):
        if split == "cluster" and column is None:
            raise UserError("data.split=cluster needs data.cluster=COLUMN, which names the cluster of each row")
        self.column = None if column is None else str(column)
        self.are_kept = column is not None and split != "row"
        self.test = test if test is None or isinstance(test, str) else [short(str(name)) for name in test]
        if test is not None and not self.are_kept:
            needed = "data.split=cluster" if column is not None else "data.cluster=COLUMN"
            raise UserError(f"data.test_clusters={shown(test)} needs {needed}")
        self.part = None if self.test is None else part_of(self.test)

    def read(
        self,
        frame: pd.DataFrame,
        where: str,
        advice: str = "name them, remove these rows, or set data.cluster=null",
    ) -> np.ndarray | None:
        """Return the cluster of each row of a table (N,); None without a column. `advice` is for missing values.

        Raises:
            UserError: the column is missing, or has missing values.
        """
        if self.column is None:
            return None
        names = to_names(pick(frame, self.column, where, "data.cluster"), where)
        missing = [position for position, name in enumerate(names) if name is None or not name.strip()]
        if missing:
            raise UserError(
                f"{where}: {len(missing):,} of {len(names):,} rows have no cluster (column {self.column}), the first "
                f"is row {frame.index[missing[0]]}: {advice}"
            )
        return np.array([short(name) for name in names], dtype=object)

    def joined(self, parts: Collection[np.ndarray | None]) -> np.ndarray | None:
        """Return the clusters of the rows of all splits (N,), which must be two or more; None without a column.

        Raises:
            UserError: all rows are of one cluster.
        """
        if self.column is None:
            return None
        names = np.concatenate(list(parts))
        if len(set(names)) < 2:
            raise UserError(
                f"data.cluster={self.column}: all {len(names):,} rows are of one cluster ({names[0]}): name a column "
                "with several, or set data.cluster=null"
            )
        return names

    def split(
        self, names: np.ndarray, rows: np.ndarray, seed: int, missing: Collection[str] = ("test", "validation")
    ) -> dict[str, np.ndarray]:
        """Divide rows (n,), indices of `names` (N,), into train and the `missing` splits, each with other clusters.

        Raises:
            UserError: there are too few clusters, or a test cluster does not exist.
        """
        count = len(set(names[rows]))
        if count <= len(missing):
            raise UserError(
                f"data.cluster={self.column}: there are {count} clusters, but {len(missing) + 1} are needed, one for "
                "each split: set data.split=row to split by row"
            )
        if self.test is not None and "test" not in missing:
            raise UserError(f"data.test_clusters={shown(self.test)}: the data set has its own test split: remove it")
        found = {}
        for name in [name for name in ("test", "validation") if name in missing]:
            groups = names[rows]
            if len(set(groups)) < 2:
                raise UserError(
                    f"data.test_clusters={shown(self.test)} leaves {len(set(groups))} of {count} clusters for "
                    "training and validation: 2 are needed"
                )
            if name == "test" and self.test is not None:
                held = np.isin(groups, self.tested(groups))
            else:
                _, chosen = next(GroupShuffleSplit(1, test_size=SHARE, random_state=seed).split(rows, groups=groups))
                held = np.isin(np.arange(len(rows)), chosen)
            found[name], rows = rows[held], rows[~held]
        return {"train": rows, **found}

    def tested(self, names: np.ndarray) -> list[str]:
        """Return the names of the test clusters among those of rows (N,): the given ones, or those of the given part.

        Raises:
            UserError: there is no such cluster, or there are fewer clusters than parts.
        """
        known = sorted(set(names))
        if self.part is None:
            chosen = list(self.test or [])
            if unknown := sorted(set(chosen) - set(known)):
                raise UserError(
                    f"data.test_clusters={shown(self.test)}: there is no cluster {unknown[0]}; there are: "
                    f"{listed(known)}"
                )
            return chosen
        number, parts = self.part
        if parts > len(known):
            raise UserError(f"data.test_clusters={self.test}: there are only {len(known)} clusters")
        folds = list(GroupKFold(parts).split(names, groups=names))
        return sorted(set(names[folds[number - 1][1]]))

    def check(self, names: np.ndarray, index: Mapping[str, np.ndarray]) -> None:
        """Check that no cluster is in two of the splits, whose rows are given by name.

        Raises:
            UserError: a cluster is in two splits, which the data set itself then has.
        """
        if not self.are_kept:
            return
        found = {name: set(names[rows]) for name, rows in index.items()}
        for first, second in (("train", "test"), ("train", "validation"), ("validation", "test"), *self._shifts(found)):
            if common := sorted(found[first] & found[second]):
                raise UserError(
                    f"data.cluster={self.column}: {len(common):,} of {len(found[second]):,} clusters of the split "
                    f"{second} are also in {first}: {listed(common)}; move their rows, or set data.split=row"
                )

    def _shifts(self, found: Mapping[str, set[str]]) -> list[tuple[str, str]]:
        return [("train", name) for name in found if name.startswith("test_")]

    def note_unlabelled(self, names: np.ndarray, known: np.ndarray) -> None:
        """Print a warning about the clusters of rows (N,) without any row that has a target, by `known` (N,)."""
        unknown = sorted(set(names) - set(names[known]))
        if unknown:
            what = f"{len(unknown):,} of {len(set(names)):,} clusters have no row with a target"
            screen.say(f"warning: data.cluster={self.column}: {what}: {listed(unknown)}", style="yellow")

    def remedy(self) -> str:
        """Return what to do about a split without rows of a class, for the end of a message."""
        return ": set another data.split_seed, or data.split=row" if self.are_kept else ""


def part_of(test: str | Sequence[str]) -> tuple[int, int] | None:
    """Return the number of a part and the number of parts of a text such as 1/3; None for a list of names.

    Raises:
        UserError: the text has another form, or the list is empty.
    """
    if isinstance(test, str):
        match = PART.fullmatch(test)
        number, parts = map(int, match.groups()) if match else (0, 0)
        if not (1 <= number <= parts and parts > 1):
            raise UserError(
                f"data.test_clusters={test}: give names in brackets, such as [a,b], or a part of all, such as 1/3"
            )
        return number, parts
    if not test:
        raise UserError("data.test_clusters=[]: give one name or more, or null to choose at random")
    return None


def short(name: str) -> str:
    """Return a name; if it is long, its start and a hash."""
    if len(name) <= LONGEST:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{' '.join(name[:LONGEST].split())}... ({digest})"


def shown(test: Chosen) -> str:
    """Return test clusters as in a command line."""
    return test if isinstance(test, str) else f"[{','.join(map(str, test))}]"
