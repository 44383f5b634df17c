"""The user's own recordings: one folder per class, sound files inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from warmstart.contracts import Preprocessor, Rows, Splits, UserError
from warmstart.data.sounds import read_sounds, sound_files
from warmstart.data.splits import check_classes, split_rows


class AudioFolder:
    """All recordings are read into memory.

    Args:
        frames: makes the preprocessor.
        root: the folder; each folder in it is a class.
        on_error: raise, or skip broken recordings.
        split_seed: fixes which recordings train, validate and test.
    """

    modality: ClassVar = "speech"
    offers: ClassVar = frozenset({"category"})

    def __init__(self, frames: Callable[..., Preprocessor], root: str, on_error: str = "raise", split_seed: int = 0):
        self.frames, self.root, self.on_error, self.split_seed = frames, Path(root), on_error, split_seed

    def load(self, target: str | None) -> Splits:
        """Waveforms, stratified by class."""
        if not self.root.is_dir():
            what = "this is a file: for a table, data=audio_table" if self.root.is_file() else "there is no such folder"
            raise UserError(f"data.root={self.root}: {what}")
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        groups = {folder.name: files for folder in folders if (files := sound_files(folder))}
        if len(groups) < 2:
            found = f"only {next(iter(groups))}" if groups else "none"
            raise UserError(f"data.root={self.root} needs a folder of sounds per class, two or more; found {found}")
        files = [path for group in groups.values() for path in group]
        x = read_sounds(files, [str(path) for path in files], self.on_error)
        y = np.repeat(np.arange(len(groups)), [len(group) for group in groups.values()])[x.index]
        labels = tuple(groups)
        check_classes(y, labels)
        parts = split_rows(Rows(x, y), labels, self.split_seed, strata=y)
        for rows in (parts.train, parts.validation, parts.test):
            rows.x = rows.x.reset_index(drop=True)
        return parts

    def preprocessor(self) -> Preprocessor:
        """As the frames are configured."""
        return self.frames()
