"""The user's own pictures: one folder per class, image files inside."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from warmstart.contracts import Rows, Splits, UserError
from warmstart.data.image_store import ImageStore
from warmstart.data.pictures import image_files, shown, to_pictures
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.splits import check_classes, split_rows


class ImageFolder:
    """All images are resized to `size` x `size` pixels, once.

    Args:
        root: the folder; each folder in it is a class, and files in it that are no images are left out.
        size: height and width in pixels.
        channels: 3 for colour, 1 for grey.
        memory_mb: decoded images that need more are kept in the cache and read from the disk.
        on_error: what to do about images that cannot be read: raise or skip.
        split_seed: fixes which images train, validate and test.
    """

    modality: ClassVar = "image"
    offers: ClassVar = frozenset({"category"})

    def __init__(
        self,
        root: str,
        size: int = 32,
        channels: int = 3,
        memory_mb: float = 4096,
        on_error: str = "raise",
        split_seed: int = 0,
    ):
        self.store = ImageStore(size, channels, memory_mb, on_error)
        self.root, self.split_seed = Path(root), split_seed

    def load(self, target: str | None) -> Splits:
        """Images (N, C, size, size), uint8, stratified by class."""
        if not self.root.is_dir():
            what = "this is a file: for a table, data=image_table" if self.root.is_file() else "there is no such folder"
            raise UserError(f"data.root={self.root}: {what}")
        files = {
            folder.name: found
            for folder in sorted(self.root.iterdir())
            if shown(folder) and folder.is_dir() and (found := image_files(folder))
        }
        if len(files) < 2:
            found = f"only {next(iter(files))}" if files else "none"
            raise UserError(f"data.root={self.root} needs a folder of images per class, two or more; found {found}")
        pictures = to_pictures([path for group in files.values() for path in group])
        y = np.repeat(np.arange(len(files)), [len(group) for group in files.values()])
        labels = tuple(files)
        check_classes(y, labels)
        splits = split_rows(Rows(np.arange(len(y)), y), labels, self.split_seed, strata=y)
        return self.store.fill(splits, pictures)

    def preprocessor(self) -> Preprocessor:
        """8-bit pixels."""
        return Preprocessor()
