"""The user's own recordings: one folder per class, sound files inside, or such folders for each split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from warmstart.core.batch import Rows, Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed
from warmstart.data.readers.folders import FolderFiles
from warmstart.data.readers.sounds import SUFFIXES, read_sounds
from warmstart.data.sources.class_folders import cut, find_classes
from warmstart.data.splits import check_readable


class AudioFolder(Source):
    """All recordings are read into memory.

    Args:
        frames: makes the preprocessor.
        root: the folder; each folder in it is a class, or a split (train, validation, test) with a folder per class.
            Splits that are missing are cut from the training recordings. What is left out is printed.
        on_error: raise, or skip broken recordings.
        split_seed: fixes which recordings train, validate and test.
    """

    modality: ClassVar = "speech"
    offers: ClassVar = frozenset({"category"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: Location,
        on_error: Literal["raise", "skip"] = "raise",
        split_seed: Seed = 0,
    ):
        self.frames, self.root, self.on_error, self.split_seed = frames, Path(root), on_error, split_seed

    def load(self, target: str | None) -> Splits:
        """Waveforms, stratified by class where they are cut here."""
        found = find_classes(FolderFiles(self.root, SUFFIXES), "sounds", "data=audio_table")
        splits = cut(found, self.root, self.split_seed)
        x = read_sounds(found.files, list(map(str, found.files)), self.on_error)

        def read(rows: Rows) -> Rows:
            kept = np.isin(rows.x, x.index)
            return Rows(x.loc[rows.x[kept]].reset_index(drop=True), rows.y[kept])

        parts = [read(rows) for rows in (splits.train, splits.validation, splits.test)]
        shifts = {name: read(rows) for name, rows in splits.shifts.items()}
        return check_readable(Splits(*parts, labels=splits.labels, shifts=shifts), "recording")

    def preprocessor(self) -> Preprocessor:
        """As the frames are configured."""
        return self.frames()
