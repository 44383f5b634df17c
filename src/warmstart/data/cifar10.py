"""CIFAR-10: 60,000 colour photos of 32 x 32 pixels in ten classes (Krizhevsky 2009)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from warmstart.contracts import Rows, Splits, UserError
from warmstart.data.pictures import to_array
from warmstart.data.preprocess.image import Preprocessor

if TYPE_CHECKING:
    from datasets import Dataset

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10:
    """The official test split; the last `validation` training images validate.

    Args:
        root: a Hugging Face hub name, or a local folder in the hub's layout (Parquet files).
        validation: how many of the 50,000 training images are kept for validation.
        limit: use only this many training images.
        size: height and width in pixels that the photos are resized to.
    """

    modality: ClassVar = "image"
    offers: ClassVar = frozenset({"category"})

    def __init__(self, root: str = "uoft-cs/cifar10", validation: int = 5000, limit: int | None = None, size: int = 32):
        if size < 1:
            raise UserError(f"data.size={size}: must be above 0")
        self.root, self.validation, self.limit, self.size = root, validation, limit, size

    def load(self, target: str | None) -> Splits:
        """Images (N, 3, size, size), uint8."""
        train, test = self._read("train"), self._read("test")
        cut = len(train) - self.validation
        if cut < 1:
            raise UserError(f"data.validation={self.validation} leaves no training image of {len(train)}")
        kept = cut if self.limit is None else min(self.limit, cut)
        parts = (train.select(range(kept)), train.select(range(cut, len(train))), test)
        return Splits(*(self._decoded(part) for part in parts), labels=LABELS)

    def preprocessor(self) -> Preprocessor:
        """8-bit pixels."""
        return Preprocessor()

    def _decoded(self, table: Dataset) -> Rows:
        shape = (3, self.size, self.size)
        images = np.array([to_array(image, shape) for image in table["img"]], dtype=np.uint8).reshape(-1, *shape)
        return Rows(images, np.array(table["label"], dtype=np.int64))

    def _read(self, split: str) -> Dataset:
        import datasets

        datasets.disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        if not Path(self.root).is_dir() and self.root.count("/") != 1:
            raise UserError(f"data.root={self.root}: there is no such folder")
        try:
            table = datasets.load_dataset(self.root, split=split)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"data.root={self.root} cannot be loaded ({reason}); give a local copy's folder") from error
        if not {"img", "label"} <= set(table.column_names):
            raise UserError(f"data.root={self.root} has columns {table.column_names}; img and label are expected")
        return table
