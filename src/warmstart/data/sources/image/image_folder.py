"""The user's own pictures: one folder per class, image files inside, or such folders for each split."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from warmstart.core.batch import Splits
from warmstart.core.protocols import Source
from warmstart.core.ranges import Amount, Count, Location, Seed
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.readers.folders import FolderFiles
from warmstart.data.readers.images import SUFFIXES, to_pictures
from warmstart.data.sources.class_folders import cut, find_classes
from warmstart.data.storage.images import ImageStore


class ImageFolder(Source):
    """All images are resized to `size` x `size` pixels, once.

    Args:
        root: the folder; each folder in it is a class, or a split (train, validation, test) with a folder per class.
            Splits that are missing are cut from the training images. What is left out is printed.
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
        root: Location,
        size: Count = 32,
        channels: Literal[1, 3] = 3,
        memory_mb: Amount = 4096,
        on_error: Literal["raise", "skip"] = "raise",
        split_seed: Seed = 0,
    ):
        self.store = ImageStore(size, channels, memory_mb, on_error)
        self.root, self.split_seed = Path(root), split_seed

    def load(self, target: str | None) -> Splits:
        """Images (N, C, size, size), uint8, stratified by class where they are cut here."""
        found = find_classes(FolderFiles(self.root, SUFFIXES), "images", "data=image_table")
        return self.store.fill(cut(found, self.root, self.split_seed), to_pictures(found.files))

    def preprocessor(self) -> Preprocessor:
        """8-bit pixels."""
        return Preprocessor()
