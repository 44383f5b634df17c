"""The user's own pictures: one folder per class, image files inside."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from warmstart.contracts import Rows, Splits, UserError
from warmstart.data.pictures import image_files, read_images, shown
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.splits import check_classes, split_rows


class ImageFolder:
    """All images are resized to `size` x `size` pixels and kept in memory.

    Args:
        root: the folder; each folder in it is a class.
        size: height and width in pixels.
        channels: 3 for colour, 1 for grey.
        split_seed: fixes which images train, validate and test.
    """

    modality: ClassVar = "image"
    offers: ClassVar = frozenset({"category"})

    def __init__(self, root: str, size: int = 32, channels: int = 3, split_seed: int = 0):
        if size < 1 or channels not in (1, 3):
            raise UserError(f"data.size={size}, channels={channels}: size must be above 0, channels 1 or 3")
        self.root, self.size, self.channels, self.split_seed = Path(root), size, channels, split_seed

    def load(self, target: str | None) -> Splits:
        """Images (N, C, size, size), uint8, stratified by class."""
        if not self.root.is_dir():
            raise UserError(f"data.root={self.root}: there is no such folder")
        classes = sorted(
            folder for folder in self.root.iterdir() if shown(folder) and folder.is_dir() and image_files(folder)
        )
        if len(classes) < 2:
            found = f"only {classes[0].name}" if classes else "none"
            raise UserError(f"data.root={self.root} needs a folder of images per class, two or more; found {found}")
        files = [image_files(folder) for folder in classes]
        x = read_images([path for group in files for path in group], (self.channels, self.size, self.size))
        y = np.repeat(np.arange(len(classes)), [len(group) for group in files])
        labels = tuple(folder.name for folder in classes)
        check_classes(y, labels)
        return split_rows(Rows(x, y), labels, self.split_seed, strata=y)

    def preprocessor(self) -> Preprocessor:
        """8-bit pixels."""
        return Preprocessor()
