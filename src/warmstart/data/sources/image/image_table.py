"""Images in a table: one row per image, with one or more target columns."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Source
from warmstart.core.ranges import Location, MissingValues, NonNegativeFloat, PositiveInt, Seed, Separator
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.readers.columns import check_entries, check_targets, is_listed, name_of, pick, to_names, to_numbers
from warmstart.data.readers.images import pictures_of
from warmstart.data.readers.splits import describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.own_splits import read_own_splits, split_table
from warmstart.data.splits import encode_labels
from warmstart.data.storage.images import ImageStore


class ImageTable(Source):
    """Classes, several labels or real values, depending on the objective.

    The splits train, validation and test of the data set are used; missing ones are split off from the training rows,
    15 % each. Splits named test_<shift> are further test splits. Rows without a target are used in pretraining only.

    Args:
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder of them by splits, or a hub name.
        image: column of images: paths relative to the folder of the file, or encoded, as in the `datasets` library.
        target: target column, with lists if an image has several labels; or a list of columns of 0 and 1 (several
            labels) or of numbers. Pretraining needs none.
        cluster: column of the clusters of rows that are not independent, such as speakers or patients.
        split: row, or cluster to keep each cluster in one split; None for cluster if `cluster` is set, else row.
        test_clusters: clusters of the test split: names, or a part of all, such as 1/3; None for 15 % at random.
        separator: character between cells of a text file; None to detect it in the header.
        missing_values: texts of cells to treat as missing values, besides empty cells.
        config: configuration of a hub data set.
        size: height and width in pixels.
        channels: 3 for color, 1 for grayscale.
        memory_mb: memory limit; larger data is stored in the cache and read from disk.
        on_error: raise, or skip images that cannot be read.
        split_seed: seed of the split.
    """

    modality: ClassVar = "image"
    target_kinds: ClassVar = frozenset({"category", "categories", "value"})

    def __init__(
        self,
        root: Location,
        image: str,
        target: str | list[str] | None = None,
        cluster: str | int | None = None,
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        separator: Separator | None = None,
        missing_values: MissingValues | None = None,
        config: str | None = None,
        size: PositiveInt = 32,
        channels: Literal[1, 3] = 3,
        memory_mb: NonNegativeFloat = 4096,
        on_error: Literal["raise", "skip"] = "raise",
        split_seed: Seed = 0,
    ):
        self.store = ImageStore(size, channels, memory_mb, on_error)
        self.dialect = Dialect(separator, tuple(missing_values or ()))
        self.clusters = Clusters(cluster, split, test_clusters)
        self.root, self.image, self.config, self.split_seed = root, str(image), config, split_seed
        self.target = [str(name) for name in (target if isinstance(target, list) else [target]) if name is not None]

    def load(self, target: str | None) -> Splits:
        """Return images (N, C, size, size), uint8; the split does not depend on the kind of target.

        Raises:
            UserError: a column is missing, an image cannot be read, or the targets do not match the objective.
        """
        if target is not None and not self.target:
            raise UserError("data.target=null: name the column to predict")
        frames = read_own_splits(self.root, self.config, self.dialect)
        pictures, tables, names = [], {}, []
        for name, frame in frames.items():
            where = describe(self.root, name, frames)
            column = pick(frame, self.image, where, "data.image")
            pictures += pictures_of(column, where, self._folder(), must_exist=not self.store.skips)
            targets = pd.DataFrame({key: pick(frame, key, where, "data.target") for key in self.target}, frame.index)
            for key in self.target:  # here, so that errors have the row numbers of the file
                if is_listed(targets[key]):
                    check_entries(targets[key], where, "a label")
                elif target != "categories" or len(self.target) > 1:
                    check_targets(targets[key], target, where)
            tables[name] = targets
            names.append(self.clusters.read(frame, where))
        numbers, encode = np.arange(len(pictures)), functools.partial(self._targets, kind=target)
        splits = split_table(numbers, tables, self.target, self.root, self.split_seed, encode, self.clusters, names)
        return self.store.fill(splits, pictures)

    def preprocessor(self) -> Preprocessor:
        return Preprocessor(column=self.image, dialect=self.dialect.state())

    def _folder(self) -> Path:
        """Return the folder that image paths are relative to, and must be in."""
        path = Path(self.root)
        if path.exists():
            return path if path.is_dir() else path.parent
        import datasets

        return Path(datasets.config.HF_CACHE_HOME)

    def _targets(self, table: pd.DataFrame, kind: str | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
        if kind is None:
            return None, ()
        column = table[self.target[0]]
        if kind == "categories" and is_listed(column):
            return to_multilabel(column)
        if kind == "category":
            if len(self.target) > 1 or is_listed(column):
                raise UserError(f"data.target={self.target}: these are several labels; set objective=multilabel")
            return encode_labels(to_names(column, self.root))
        if kind == "categories" and len(self.target) < 2:
            raise UserError("objective=multilabel needs a column of lists, or two columns or more: data.target=[a,b]")
        values = np.stack([to_numbers(table[name], self.root) for name in self.target], axis=1)
        return values.astype(np.float32) if kind == "categories" else values, tuple(self.target)


def to_multilabel(column: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert lists of labels to a binary array (N, labels); return it and the labels."""
    rows = [set(map(name_of, row)) for row in column]
    labels = tuple(sorted(set().union(*rows)))
    if len(labels) < 2:
        raise UserError(f"data.target={column.name}: all rows have the labels {', '.join(labels)}: two are needed")
    return np.array([[label in row for label in labels] for row in rows], dtype=np.float32), labels
