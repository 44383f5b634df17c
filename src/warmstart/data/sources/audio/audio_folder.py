"""Recordings in one folder per class, with or without splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from warmstart.core.batch import Rows, Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed
from warmstart.data.readers.folders import FolderFiles
from warmstart.data.readers.sounds import SUFFIXES, read_sounds
from warmstart.data.sources.class_folders import find_classes, split
from warmstart.data.splits import check_readable


class AudioFolder(Source):
    """Recordings in one folder per class, read into memory.

    Args:
        frames: constructor of the preprocessor.
        root: folder with a folder per class, or with such folders in train, validation and test. Missing splits are
            taken from the training recordings. Skipped files are reported.
        on_error: raise, or skip broken recordings.
        split_seed: seed of the split.
    """

    modality: ClassVar = "speech"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: Location,
        on_error: Literal["raise", "skip"] = "raise",
        split_seed: Seed = 0,
    ):
        self.frames, self.root, self.on_error, self.split_seed = frames, Path(root), on_error, split_seed

    def load(self, target: str | None) -> Splits:
        """Return waveforms, stratified by class if they are split here."""
        found = find_classes(FolderFiles(self.root, SUFFIXES), "sounds", "data=audio_table")
        splits = split(found, self.root, self.split_seed)
        x = read_sounds(found.files, list(map(str, found.files)), self.on_error)

        def read(rows: Rows) -> Rows:
            kept = rows.take(np.isin(rows.x, x.index))
            return replace(kept, x=x.loc[kept.x].reset_index(drop=True))

        parts = [read(rows) for rows in (splits.train, splits.validation, splits.test)]
        shifts = {name: read(rows) for name, rows in splits.shifts.items()}
        return check_readable(Splits(*parts, labels=splits.labels, shifts=shifts), "recording")

    def preprocessor(self) -> Preprocessor:
        return self.frames()
