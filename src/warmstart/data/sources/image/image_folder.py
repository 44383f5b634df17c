"""Images in one folder per class, with or without splits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from warmstart.core.batch import Splits
from warmstart.core.protocols import Source
from warmstart.core.ranges import Location, NonNegativeFloat, PositiveInt, Seed
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.readers.folders import FolderFiles
from warmstart.data.readers.images import SUFFIXES, to_pictures
from warmstart.data.sources.class_folders import find_classes, split
from warmstart.data.storage.images import ImageStore


class ImageFolder(Source):
    """Images resized to `size` x `size` pixels.

    Args:
        root: folder with a folder per class, or with such folders in train, validation and test. Missing splits are
            taken from the training images. Skipped files are reported.
        size: height and width in pixels.
        channels: 3 for color, 1 for grayscale.
        memory_mb: memory limit; larger data is stored in the cache and read from disk.
        on_error: raise, or skip images that cannot be read.
        split_seed: seed of the split.
    """

    modality: ClassVar = "image"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(
        self,
        root: Location,
        size: PositiveInt = 32,
        channels: Literal[1, 3] = 3,
        memory_mb: NonNegativeFloat = 4096,
        on_error: Literal["raise", "skip"] = "raise",
        split_seed: Seed = 0,
    ):
        self.store = ImageStore(size, channels, memory_mb, on_error)
        self.root, self.split_seed = Path(root), split_seed

    def load(self, target: str | None) -> Splits:
        """Return images (N, C, size, size), uint8, stratified by class if they are split here."""
        found = find_classes(FolderFiles(self.root, SUFFIXES), "images", "data=image_table")
        return self.store.fill(split(found, self.root, self.split_seed), to_pictures(found.files))

    def preprocessor(self) -> Preprocessor:
        return Preprocessor()
