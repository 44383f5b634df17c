"""Tables of numbers and categories: one row per example, with one or more target columns."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Source
from warmstart.core.ranges import Location, MissingValues, Seed, Separator
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.preprocess.table import Preprocessor
from warmstart.data.readers.columns import check_targets, pick, to_names, to_numbers
from warmstart.data.readers.splits import describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.own_splits import read_own_splits, split_table
from warmstart.data.splits import encode_labels


class Table(Source):
    """Classes, several labels or real values, depending on the objective.

    The splits train, validation and test of the data set are used; missing ones are split off from the training rows,
    15 % each. Splits named test_<shift> are further test splits. Rows without a target are used in pretraining only.

    Args:
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder of them by splits, or a hub name.
        target: target column, or a list of columns of 0 and 1 (several labels) or of numbers.
        categorical: columns with categories; all others must have numbers.
        ignore: columns to ignore.
        missing: imputation of missing numbers: mean, median, or error to raise an error.
        cluster: column of the clusters of rows that are not independent, such as speakers or patients;
            it is no feature.
        split: row, or cluster to keep each cluster in one split; None for cluster if `cluster` is set, else row.
        test_clusters: clusters of the test split: names, or a part of all, such as 1/3; None for 15 % at random.
        separator: character between cells of a text file; None to detect it in the header.
        missing_values: texts of cells to treat as missing values, besides empty cells.
        config: configuration of a hub data set.
        split_seed: seed of the split.
    """

    modality: ClassVar = "vector"
    target_kinds: ClassVar = frozenset({"category", "categories", "value"})
    is_quick: ClassVar = True  # `load` needs no torch

    def __init__(
        self,
        root: Location,
        target: str | int | list[str | int],
        categorical: list[str | int] | None = None,
        ignore: list[str | int] | None = None,
        missing: Literal["error", "mean", "median"] = "error",
        cluster: str | int | None = None,
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        separator: Separator | None = None,
        missing_values: MissingValues | None = None,
        config: str | None = None,
        split_seed: Seed = 0,
    ):
        self.root, self.missing, self.config, self.split_seed = str(root), missing, config, split_seed
        self.target = list(map(str, target)) if isinstance(target, list) else [str(target)]
        self.categorical, self.ignore = list(map(str, categorical or [])), list(map(str, ignore or []))
        self.dialect = Dialect(separator, tuple(missing_values or ()))
        self.clusters = Clusters(cluster, split, test_clusters)
        for option, names in (("target", self.target), ("categorical", self.categorical)):
            if self.clusters.column in names:
                raise UserError(f"data.cluster={cluster}: the column is in data.{option} too; a cluster is no input")

    def load(self, target: str | None) -> Splits:
        """Return tables of features; rows without a target are used in pretraining only."""
        if target == "category" and len(self.target) > 1:
            raise UserError("classification predicts one column: give one data.target, or objective=multilabel")
        if target == "categories" and len(self.target) < 2:
            raise UserError("objective=multilabel needs two or more columns: data.target=[a,b,...]")
        frames = read_own_splits(self.root, self.config, self.dialect)
        features, targets, clusters = [], {}, []
        for name, frame in frames.items():
            where = describe(self.root, name, frames)
            chosen = {key: pick(frame, key, where, "data.target") for key in self.target}
            for option, names in (("categorical", self.categorical), ("ignore", self.ignore)):
                for key in names:
                    pick(frame, key, where, f"data.{option}")
            clusters.append(self.clusters.read(frame, where))
            others = {*self.target, *self.ignore, self.clusters.column} - {None}
            features.append(self._features(frame.drop(columns=list(others)), where))
            targets[name] = pd.DataFrame(chosen)
            for column in chosen.values():
                check_targets(column, target, where)
        x = pd.concat(features, ignore_index=True)
        encode = functools.partial(self._targets, kind=target)
        return split_table(x, targets, self.target, self.root, self.split_seed, encode, self.clusters, clusters)

    def preprocessor(self) -> Preprocessor:
        return Preprocessor(self.categorical, self.missing, dialect=self.dialect.state())

    def _features(self, frame: pd.DataFrame, where: str) -> pd.DataFrame:
        """Convert the features of a split, here, so that errors have the row numbers of the file."""
        if frame.shape[1] == 0:
            raise UserError(f"{where} has no feature columns besides the target and data.ignore")
        categories, numbers = self.preprocessor().check(frame, where)
        names = {name: pd.Series(cells, dtype=object) for name, cells in categories.items()}
        return pd.DataFrame({**names, **numbers})[list(frame)]

    def _targets(self, table: pd.DataFrame, kind: str | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
        if kind is None:
            return None, ()
        if kind == "category":
            return encode_labels(to_names(table[self.target[0]], self.root))
        values = np.stack([to_numbers(table[name], self.root) for name in self.target], axis=1)
        return values.astype(np.float32) if kind == "categories" else values, tuple(self.target)
