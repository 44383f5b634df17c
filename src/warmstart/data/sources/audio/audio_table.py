"""Recordings in a manifest: one row per recording, with a text or a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from warmstart.core import screen
from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, MissingValues, PositiveInt, Seed, Separator
from warmstart.data.readers.columns import pick, to_names, to_texts
from warmstart.data.readers.files import listed
from warmstart.data.readers.splits import SHIFT, describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.audio import manifest
from warmstart.data.sources.audio.manifest import alphabet, encode, sounds_of
from warmstart.data.sources.own_splits import HELD_OUT, check_in_training, read_own_splits, with_target
from warmstart.data.splits import check_classes, check_readable, encode_labels, split_rows

MIN_CLASS_ROWS = 4  # for stratification
ABSENT = "(missing)"  # stratum of rows without a class


class AudioTable(Source):
    """Classes or transcripts, depending on the objective; recordings without a class are used in pretraining only.

    The splits of the data set are used; missing ones are split off from the training rows, by speaker if `speaker` is
    set, else by row. The columns offset and duration, in seconds, select parts of recordings.

    Args:
        frames: constructor of the preprocessor.
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder that `datasets` reads, or a hub name; its files
            must be below its folder.
        audio: column of paths or sounds; None for the first of audio, audio_filepath, path and file.
        text: column of transcripts.
        target: column of classes.
        speaker: column of speakers, to split by speaker.
        pieces: vocabulary size of the transcripts; None for characters.
        on_error: raise, or skip broken recordings.
        config: configuration of a hub data set.
        separator: character between cells of a text file; None to detect it in the header.
        missing_values: texts of cells to treat as missing values, besides empty cells.
        split_seed: seed of the split.
    """

    modality: ClassVar = "speech"
    target_kinds: ClassVar = frozenset({"category", "text"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: Location,
        audio: str | None = None,
        text: str = "text",
        target: str = "label",
        speaker: str | None = None,
        pieces: PositiveInt | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        config: str | None = None,
        separator: Separator | None = None,
        missing_values: MissingValues | None = None,
        split_seed: Seed = 0,
    ):
        self.frames, self.root, self.audio, self.text, self.target = frames, root, audio, text, target
        self.speaker, self.pieces, self.on_error, self.config = speaker, pieces, on_error, config
        self.dialect, self.split_seed = Dialect(separator, tuple(missing_values or ())), split_seed

    def load(self, target: str | None) -> Splits:
        """Return waveforms, and class indices or lists of labels.

        Raises:
            UserError: a column or a file is missing, a text is empty, or there is only one class or speaker.
        """
        frames = read_own_splits(self.root, self.config, self.dialect)
        tables = [self._table(frame, describe(self.root, name, frames), target) for name, frame in frames.items()]
        table = pd.concat(tables, ignore_index=True)
        split = np.repeat(list(frames), list(map(len, tables)))
        index = self._index(table, split)
        x, y, labels = table[["audio", "rate", "file"]], None, ()
        if target == "category":
            known = with_target(table.y.notna().to_numpy(), split, self.root, [str(self.target)])
            if self.speaker is not None:
                manifest.report_unlabelled(table.speaker.to_numpy(), known, self.speaker)
            numbers, labels = encode_labels(table.y[known].to_numpy())
            check_classes(numbers, labels)
            y = np.full(len(table), -1)
            y[known] = numbers
            check_in_training(numbers, labels, split[known], frames, self.root)
            index = {name: rows[known[rows]] for name, rows in index.items()}
            self._check_classes(index, y, labels)
        if target == "text":
            labels = alphabet(table.y[index["train"]].tolist(), self.pieces)
            y = encode(table.y.tolist(), labels, table.file)
        rows = Rows(x, y)
        parts = {name: rows.take(numbers) for name, numbers in index.items()}
        for part in parts.values():
            part.x = part.x.reset_index(drop=True)
        own = [parts.pop(name) for name in ("train", *HELD_OUT)]
        shifts = {name.removeprefix(SHIFT): part for name, part in parts.items()} if target is not None else {}
        return check_readable(Splits(*own, labels=labels, shifts=shifts), "recording")

    def preprocessor(self) -> Preprocessor:
        return self.frames(column=self.audio, dialect=self.dialect.state())

    def _table(self, frame: pd.DataFrame, where: str, kind: str | None) -> pd.DataFrame:
        """Return the recordings, targets and speakers of a split."""
        columns = {}
        if self.target in frame:
            names = to_names(frame[self.target], where)
            columns["stratum"] = np.array(["" if name is None else name for name in names])
        if kind == "category":
            columns["y"] = to_names(pick(frame, str(self.target), where, "data.target"), where)
        elif kind == "text":
            columns["y"] = to_texts(pick(frame, str(self.text), where, "data.text"), where).to_numpy()
        if self.speaker is not None:
            names = to_names(pick(frame, str(self.speaker), where, "data.speaker"), where)
            columns["speaker"] = manifest.check(names, frame.index, where, str(self.speaker))
        root = Path(self.root)
        sounds = sounds_of(frame, where, root if root.is_dir() else root.parent, self.audio, self.on_error)
        return sounds.assign(**{name: values[sounds.index] for name, values in columns.items()})

    def _index(self, table: pd.DataFrame, split: np.ndarray) -> dict[str, np.ndarray]:
        """Return the row indices of each split, for all kinds of target; missing splits are split off from train."""
        index = {name: np.flatnonzero(split == name) for name in dict.fromkeys(("train", *HELD_OUT, *split))}
        missing = [name for name in HELD_OUT if not len(index[name])]
        if missing:
            _, *held_out = self._split(table, index["train"])
            index.update({name: rows for name, rows in zip(HELD_OUT, held_out) if name in missing})
            index["train"] = np.setdiff1d(index["train"], np.concatenate([index[name] for name in missing]))
        if self.speaker is not None:
            manifest.report_shared(table.speaker.to_numpy(), index, self.speaker)
        return index

    def _split(self, table: pd.DataFrame, rows: np.ndarray) -> list[np.ndarray]:
        """Split rows into train, validation and test, by speaker or stratified by class."""
        if self.speaker is not None:
            return manifest.split(table.speaker.to_numpy(), rows, self.split_seed, self.speaker)
        strata = None
        if "stratum" in table:
            found = table.stratum.iloc[rows].fillna(ABSENT)
            strata = None if found.value_counts().min() < MIN_CLASS_ROWS else found.to_numpy()
        splits = split_rows(Rows(rows), (), self.split_seed, strata)
        return [part.x for part in (splits.train, splits.validation, splits.test)]

    def _check_classes(self, index: dict[str, np.ndarray], y: np.ndarray, labels: tuple[str, ...]) -> None:
        """Check that all classes have training rows; print a warning if they are missing in other splits.

        Raises:
            UserError: a class has no training rows, or a split has no rows.
        """
        remedy = ": set another data.split_seed, or data.speaker=null" if self.speaker is not None else ""
        for name, rows in index.items():
            missing = [labels[number] for number in np.setdiff1d(np.arange(len(labels)), y[rows])]
            shown = listed(missing)
            if name == "train" and missing:
                raise UserError(f"data.root={self.root}: no row to train on is of class {shown}{remedy}")
            if not len(rows):
                raise UserError(f"data.root={self.root}: no row of the split {name} has a class{remedy}")
            if missing:
                screen.say(f"warning: the split {name} has no row of class {shown}{remedy}", style="yellow")
