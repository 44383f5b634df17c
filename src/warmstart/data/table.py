"""The user's own CSV or Parquet file: one row per example, one column (or several) to predict."""

from __future__ import annotations

import difflib
from typing import ClassVar

import numpy as np
import pandas as pd

from warmstart.contracts import Rows, Splits, UserError
from warmstart.data.numbers import read_frame, to_names, to_numbers
from warmstart.data.preprocess.table import Preprocessor
from warmstart.data.splits import check_classes, split_rows


class Table:
    """Classes, several labels or real values, as the objective asks.

    Args:
        root: the file.
        target: the column to predict, or a list of columns of 0 and 1 (several labels) or of numbers.
        categorical: columns whose values are names; every other column must hold numbers.
        ignore: columns to leave out.
        missing: what to do about empty numbers: mean, median, or error.
        split_seed: fixes which rows train, validate and test.
    """

    modality: ClassVar = "vector"
    offers: ClassVar = frozenset({"category", "categories", "value"})

    def __init__(
        self,
        root: str,
        target: str | int | list[str | int],
        categorical: list[str | int] | None = None,
        ignore: list[str | int] | None = None,
        missing: str = "error",
        split_seed: int = 0,
    ):
        if missing not in ("error", "mean", "median"):
            raise UserError(f"data.missing={missing}: give mean, median or error")
        self.root, self.missing, self.split_seed = root, missing, split_seed
        self.target = list(map(str, target)) if isinstance(target, list) else [str(target)]
        self.categorical, self.ignore = list(map(str, categorical or [])), list(map(str, ignore or []))

    def load(self, target: str | None) -> Splits:
        """A table of features; rows with an empty target serve pretraining alone."""
        frame = read_frame(self.root)
        frame.columns = frame.columns.map(str)
        for option, names in (("target", self.target), ("categorical", self.categorical), ("ignore", self.ignore)):
            for name in names:
                if name not in frame:
                    if len(frame.columns) == 1 and ";" in frame.columns[0]:
                        raise UserError(f"{self.root} is separated by semicolons; save it with commas")
                    near = difflib.get_close_matches(name, frame.columns, n=3) or list(frame.columns)
                    raise UserError(f"{self.root} has no column {name} (data.{option}); near: {', '.join(near)}")
        features = frame.drop(columns=list(dict.fromkeys([*self.target, *self.ignore])))
        if features.shape[1] == 0:
            raise UserError(f"{self.root} has no feature column left beside the target and data.ignore")
        self._check(features)
        known = frame[self.target].notna().all(axis=1).to_numpy()
        if not known.any():
            raise UserError(f"{self.root}: column {self.target[0]} is empty in every row")
        y, labels = self._targets(frame[known], target)
        x = features[known].reset_index(drop=True)
        splits = split_rows(Rows(x, y), labels, self.split_seed, strata_of(frame.loc[known, self.target[0]]))
        splits.unlabelled = Rows(features[~known])
        return splits

    def preprocessor(self) -> Preprocessor:
        """Fill, scale and one-hot encode."""
        return Preprocessor(self.categorical, self.missing)

    def _check(self, features: pd.DataFrame) -> None:
        """Look at every cell while the rows are still those of the file, so that an error names the right one."""
        checker = Preprocessor(self.categorical, self.missing)
        checker.fit(features)

    def _targets(self, frame: pd.DataFrame, kind: str | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
        if kind is None:
            return None, ()
        if kind == "category":
            if len(self.target) > 1:
                raise UserError("classification predicts one column: give one data.target, or objective=multilabel")
            names = to_names(frame[self.target[0]])
            labels = tuple(sorted(set(names)))
            y = np.searchsorted(labels, names.astype(str)).astype(np.int64)
            check_classes(y, labels)
            return y, labels
        if kind == "categories" and len(self.target) < 2:
            raise UserError("objective=multilabel needs two or more columns: data.target=[a,b,...]")
        values = np.stack([to_numbers(frame[name], self.root) for name in self.target], axis=1)
        if kind == "categories" and not np.isin(values, (0, 1)).all():
            raise UserError(f"{self.root}: multilabel targets must be 0 or 1 in {', '.join(self.target)}")
        return values.astype(np.float32), tuple(self.target)


def strata_of(target: pd.Series) -> np.ndarray | None:
    """Class numbers to stratify by, whatever the objective makes of the column; None where it has rare values."""
    _, numbers, counts = np.unique(to_names(target).astype(str), return_inverse=True, return_counts=True)
    return numbers if len(counts) > 1 and counts.min() >= 4 else None
