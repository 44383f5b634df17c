"""Recordings in a manifest: one row per recording, with a text or a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, MissingValues, PositiveInt, Seed, Separator
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.readers.columns import pick, to_names, to_texts
from warmstart.data.readers.splits import SHIFT, describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.audio.manifest import sounds_of
from warmstart.data.sources.own_splits import (
    HELD_OUT,
    check_class_rows,
    check_in_training,
    read_own_splits,
    with_target,
)
from warmstart.data.splits import check_classes, check_readable, encode_labels, split_rows

MIN_CLASS_ROWS = 4  # for stratification
ABSENT = "(missing)"  # stratum of rows without a class


class AudioTable(Source):
    """Classes or transcripts, depending on the objective; recordings without a class are used in pretraining only.

    The splits of the data set are used; missing ones are split off from the training rows. The columns offset and
    duration, in seconds, select parts of recordings.

    Args:
        frames: constructor of the preprocessor.
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder that `datasets` reads, or a hub name; its files
            must be below its folder.
        audio: column of paths or sounds; None for the first of audio, audio_filepath, path and file.
        text: column of transcripts.
        target: column of classes.
        cluster: column of the clusters of rows that are not independent, such as speakers.
        split: row, or cluster to keep each cluster in one split; None for cluster if `cluster` is set, else row.
        test_clusters: clusters of the test split: names, or a part of all, such as 1/3; None for 15 % at random.
        pieces: vocabulary size of the transcripts; None for characters.
        on_error: raise, or skip broken recordings.
        config: configuration of a hub data set.
        separator: character between cells of a text file; None to detect it in the header.
        missing_values: texts of cells to treat as missing values, besides empty cells.
        split_seed: seed of the split.
    """

    modality: ClassVar = "speech"
    target_kinds: ClassVar = frozenset({"category", "text", "sequence"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: Location,
        audio: str | None = None,
        text: str = "text",
        target: str = "label",
        cluster: str | int | None = None,
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        pieces: PositiveInt | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        config: str | None = None,
        separator: Separator | None = None,
        missing_values: MissingValues | None = None,
        split_seed: Seed = 0,
    ):
        self.frames, self.root, self.audio, self.text, self.target = frames, root, audio, text, target
        self.pieces, self.on_error, self.config = pieces, on_error, config
        self.clusters = Clusters(cluster, split, test_clusters)
        self.dialect, self.split_seed = Dialect(separator, tuple(missing_values or ())), split_seed

    def load(self, target: str | None) -> Splits:
        """Return waveforms, and class indices or texts.

        Raises:
            UserError: a column or a file is missing, a text is empty, or there is only one class or cluster.
        """
        frames = read_own_splits(self.root, self.config, self.dialect)
        tables = [self._table(frame, describe(self.root, name, frames), target) for name, frame in frames.items()]
        table = pd.concat(tables, ignore_index=True)
        split = np.repeat(list(frames), list(map(len, tables)))
        cluster = self.clusters.joined([table.cluster.to_numpy()]) if "cluster" in table else None
        index = self._index(table, split, cluster)
        x, y, labels = table[["audio", "rate", "file"]], None, ()
        if target == "category":
            known = with_target(table.y.notna().to_numpy(), split, self.root, [str(self.target)])
            if cluster is not None:
                self.clusters.note_unlabelled(cluster, known)
            numbers, labels = encode_labels(table.y[known].to_numpy())
            check_classes(numbers, labels)
            y = np.full(len(table), -1)
            y[known] = numbers
            check_in_training(numbers, labels, split[known], frames, self.root)
            index = {name: rows[known[rows]] for name, rows in index.items()}
            check_class_rows(index, y, labels, self.root, self.clusters.remedy())
        if target in ("text", "sequence"):
            y = table.y.to_numpy(dtype=object)
        rows = Rows(x, y, cluster)
        parts = {name: rows.take(numbers) for name, numbers in index.items()}
        for part in parts.values():
            part.x = part.x.reset_index(drop=True)
        own = [parts.pop(name) for name in ("train", *HELD_OUT)]
        shifts = {name.removeprefix(SHIFT): part for name, part in parts.items()} if target is not None else {}
        return check_readable(Splits(*own, labels=labels, shifts=shifts), "recording")

    def preprocessor(self) -> Preprocessor:
        table = {"column": self.audio, "dialect": self.dialect.state(), "cluster": self.clusters.column}
        return self.frames(**table, pieces=self.pieces)

    def _table(self, frame: pd.DataFrame, where: str, kind: str | None) -> pd.DataFrame:
        """Return the recordings, targets and clusters of a split."""
        columns = {}
        if self.target in frame:
            names = to_names(frame[self.target], where)
            columns["stratum"] = np.array(["" if name is None else name for name in names])
        if kind == "category":
            columns["y"] = to_names(pick(frame, str(self.target), where, "data.target"), where)
        elif kind in ("text", "sequence"):
            columns["y"] = to_texts(pick(frame, str(self.text), where, "data.text"), where).to_numpy()
        if (names := self.clusters.read(frame, where)) is not None:
            columns["cluster"] = names
        root = Path(self.root)
        sounds = sounds_of(frame, where, root if root.is_dir() else root.parent, self.audio, self.on_error)
        return sounds.assign(**{name: values[sounds.index] for name, values in columns.items()})

    def _index(self, table: pd.DataFrame, split: np.ndarray, cluster: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return the row indices of each split, for all kinds of target; missing splits are split off from train."""
        index = {name: np.flatnonzero(split == name) for name in dict.fromkeys(("train", *HELD_OUT, *split))}
        missing = [name for name in HELD_OUT if not len(index[name])]
        if self.clusters.are_kept:
            index |= self.clusters.split(cluster, index["train"], self.split_seed, missing)
            self.clusters.check(cluster, index)
        elif missing:
            cut = self._split(table, index["train"])
            index |= {name: getattr(cut, name).x for name in missing}
            index["train"] = np.setdiff1d(index["train"], np.concatenate([index[name] for name in missing]))
        return index

    def _split(self, table: pd.DataFrame, rows: np.ndarray) -> Splits:
        """Split rows into train, validation and test, stratified by class."""
        strata = None
        if "stratum" in table:
            found = table.stratum.iloc[rows].fillna(ABSENT)
            strata = None if found.value_counts().min() < MIN_CLASS_ROWS else found.to_numpy()
        return split_rows(Rows(rows), (), self.split_seed, strata)
