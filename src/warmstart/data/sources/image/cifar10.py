"""CIFAR-10: 60,000 color images of 32 x 32 pixels in ten classes (Krizhevsky 2009)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Source
from warmstart.core.ranges import Location, PositiveInt
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.readers.columns import pick
from warmstart.data.readers.images import pictures_of, read_images
from warmstart.data.readers.splits import describe, read_splits
from warmstart.data.transforms.corruptions import corrupted

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CORRUPTED = 2000  # number of corrupted test images


class Cifar10(Source):
    """Official test split, with the last `validation` training images for validation, and 2,000 corrupted test images.

    Args:
        root: a Hugging Face hub name, or a local folder with the layout of the hub (Parquet files).
        validation: number of the 50,000 training images for validation.
        limit: maximum number of training images; None for all.
        size: height and width in pixels after resizing.
    """

    modality: ClassVar = "image"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(
        self,
        root: Location = "uoft-cs/cifar10",
        validation: PositiveInt = 5000,
        limit: PositiveInt | None = None,
        size: PositiveInt = 32,
    ):
        self.root, self.validation, self.limit, self.size = root, validation, limit, size

    def load(self, target: str | None) -> Splits:
        """Return images (N, 3, size, size), uint8."""
        frames = read_splits(self.root)
        if not {"train", "test"} <= set(frames):
            raise UserError(f"data.root={self.root} has the splits {', '.join(frames)}; it needs train and test")
        train, test = frames["train"], frames["test"]
        cut = len(train) - self.validation
        if cut < 1:
            raise UserError(f"data.validation={self.validation} leaves none of {len(train)} images for training")
        kept = cut if self.limit is None else min(self.limit, cut)
        parts = {"train": [train[:kept], train[cut:]], "test": [test]}
        rows = [self._rows(part, describe(self.root, name, frames)) for name, cuts in parts.items() for part in cuts]
        if target is None:
            return Splits(*rows, labels=LABELS)
        chosen = rows[-1].take(np.sort(np.random.default_rng(0).permutation(len(rows[-1]))[:CORRUPTED]))
        return Splits(*rows, labels=LABELS, shifts={"corrupted": replace(chosen, x=corrupted(chosen.x, seed=0))})

    def preprocessor(self) -> Preprocessor:
        return Preprocessor()

    def _rows(self, frame: pd.DataFrame, where: str) -> Rows:
        pictures = pictures_of(pick(frame, "img", where), where, Path(self.root), must_exist=True)
        numbers = pick(frame, "label", where).replace({name: number for number, name in enumerate(LABELS)})
        return Rows(read_images(pictures, (3, self.size, self.size)), numbers.to_numpy(dtype=np.int64))
