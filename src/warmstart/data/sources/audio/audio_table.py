"""The user's own recordings in a manifest: one row per recording, with a text or a class."""

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
from warmstart.core.ranges import AnyText, Count, Location, Seed
from warmstart.data.readers.columns import pick, to_names, to_texts
from warmstart.data.readers.splits import SHIFT, describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.audio import speakers
from warmstart.data.sources.audio.manifest import sounds_of
from warmstart.data.sources.audio.transcripts import alphabet, spelled
from warmstart.data.sources.own_splits import HELD_OUT, check_in_training, read_own_splits, with_target
from warmstart.data.splits import check_classes, check_readable, encode_labels, split_rows

FEWEST = 4  # rows of a class that can be in every part
ABSENT = "(missing)"  # the stratum of rows without a class
NAMED = 5


class AudioTable(Source):
    """Classes or transcripts, as the objective asks; recordings without a class serve pretraining only.

    A data set's own splits are kept; those that are missing are cut from the training rows: by speakers, where
    `speaker` names their column, or by rows. Columns offset and duration, in seconds, cut pieces from recordings.

    Args:
        frames: makes the preprocessor.
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder that `datasets` reads, or a hub name; files that it
            names are in its folder or below.
        audio: the column of paths or sounds; None for the first of audio, audio_filepath, path and file.
        text: the column of transcripts.
        target: the column of classes.
        speaker: the column of speakers, who then are in one part each.
        pieces: labels of a transcript; None for characters.
        on_error: raise, or skip broken recordings.
        config: of a hub name that has several.
        separator: between the cells of a text file; None for the one that its header line has.
        missing_values: texts of cells that stand for a missing value, as an empty cell does.
        split_seed: fixes the parts.
    """

    modality: ClassVar = "speech"
    offers: ClassVar = frozenset({"category", "text"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: Location,
        audio: str | None = None,
        text: str = "text",
        target: str = "label",
        speaker: str | None = None,
        pieces: Count | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        config: str | None = None,
        separator: str | None = None,
        missing_values: list[AnyText | float] | None = None,
        split_seed: Seed = 0,
    ):
        self.frames, self.root, self.audio, self.text, self.target = frames, root, audio, text, target
        self.speaker, self.pieces, self.on_error, self.config = speaker, pieces, on_error, config
        self.dialect, self.split_seed = Dialect(separator, tuple(missing_values or ())), split_seed

    def load(self, target: str | None) -> Splits:
        """Waveforms, and class numbers or lists of label numbers.

        Raises:
            UserError: a column or a file is missing, a text is empty, or there is one class or speaker only.
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
                speakers.report_unlabelled(table.speaker.to_numpy(), known, self.speaker)
            numbers, labels = encode_labels(table.y[known].to_numpy())
            check_classes(numbers, labels)
            y = np.full(len(table), -1)
            y[known] = numbers
            check_in_training(numbers, labels, split[known], frames, self.root)
            index = {name: rows[known[rows]] for name, rows in index.items()}
            self._check_classes(index, y, labels)
        if target == "text":
            labels = alphabet(table.y[index["train"]].tolist(), self.pieces)
            y = spelled(table.y.tolist(), labels, table.file)
        rows = Rows(x, y)
        parts = {name: rows.take(numbers) for name, numbers in index.items()}
        for part in parts.values():
            part.x = part.x.reset_index(drop=True)
        own = [parts.pop(name) for name in ("train", *HELD_OUT)]
        shifts = {name.removeprefix(SHIFT): part for name, part in parts.items()} if target is not None else {}
        return check_readable(Splits(*own, labels=labels, shifts=shifts), "recording")

    def preprocessor(self) -> Preprocessor:
        """As the frames are configured."""
        return self.frames(column=self.audio, dialect=self.dialect.state())

    def _table(self, frame: pd.DataFrame, where: str, kind: str | None) -> pd.DataFrame:
        """One split's recordings, targets and speakers."""
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
            columns["speaker"] = speakers.checked(names, frame.index, where, str(self.speaker))
        root = Path(self.root)
        sounds = sounds_of(frame, where, root if root.is_dir() else root.parent, self.audio, self.on_error)
        return sounds.assign(**{name: values[sounds.index] for name, values in columns.items()})

    def _index(self, table: pd.DataFrame, split: np.ndarray) -> dict[str, np.ndarray]:
        """The row numbers of each split, whatever the kind of target; those that are missing are cut from train."""
        index = {name: np.flatnonzero(split == name) for name in dict.fromkeys(("train", *HELD_OUT, *split))}
        lost = [name for name in HELD_OUT if not len(index[name])]
        if lost:
            _, *held_out = self._cut(table, index["train"])
            index.update({name: rows for name, rows in zip(HELD_OUT, held_out) if name in lost})
            index["train"] = np.setdiff1d(index["train"], np.concatenate([index[name] for name in lost]))
        if self.speaker is not None:
            speakers.report_shared(table.speaker.to_numpy(), index, self.speaker)
        return index

    def _cut(self, table: pd.DataFrame, rows: np.ndarray) -> list[np.ndarray]:
        """Parts of these rows that train, validate and test: by speakers, or with the shares of the classes kept."""
        if self.speaker is not None:
            return speakers.cut(table.speaker.to_numpy(), rows, self.split_seed, self.speaker)
        strata = None
        if "stratum" in table:
            found = table.stratum.iloc[rows].fillna(ABSENT)
            strata = None if found.value_counts().min() < FEWEST else found.to_numpy()
        cut = split_rows(Rows(rows), (), self.split_seed, strata)
        return [part.x for part in (cut.train, cut.validation, cut.test)]

    def _check_classes(self, index: dict[str, np.ndarray], y: np.ndarray, labels: tuple[str, ...]) -> None:
        """Refuse classes without training rows and parts without rows; report what other parts lack.

        Raises:
            UserError: these, by name.
        """
        remedy = ": set another data.split_seed, or data.speaker=null" if self.speaker is not None else ""
        for name, rows in index.items():
            lost = [labels[number] for number in np.setdiff1d(np.arange(len(labels)), y[rows])]
            shown = ", ".join(lost[:NAMED]) + (", ..." if len(lost) > NAMED else "")
            if name == "train" and lost:
                raise UserError(f"data.root={self.root}: no row to train on is of class {shown}{remedy}")
            if not len(rows):
                raise UserError(f"data.root={self.root}: no row of the split {name} has a class{remedy}")
            if lost:
                screen.say(f"warning: the split {name} has no row of class {shown}{remedy}", style="yellow")
