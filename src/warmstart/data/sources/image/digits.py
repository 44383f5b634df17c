"""Digits of scikit-learn: 1,797 handwritten digits of 8 x 8 pixels (UCI, Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from sklearn.datasets import load_digits

from warmstart.core.batch import Rows, Splits
from warmstart.core.protocols import Source
from warmstart.core.ranges import Seed
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.splits import split_rows
from warmstart.data.transforms.corruptions import noisy, rotated

WHITE = 16.0
DEVIATION = 4.0  # standard deviation of the noise
ANGLES = (15, 30)  # degrees


class Digits(Source):
    """Ten classes, split 70 : 15 : 15, with rotated and noisy copies of the test images."""

    modality: ClassVar = "image"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(self, split_seed: Seed = 0):
        self.split_seed = split_seed

    def load(self, target: str | None) -> Splits:
        """Return images (N, 1, 8, 8) with pixels from 0 to 16, stratified by class."""
        bunch = load_digits()
        images = bunch.images[:, None].astype(np.float32)
        labels = tuple(str(name) for name in bunch.target_names)
        y = bunch.target.astype(np.int64)
        splits = split_rows(Rows(images, y), labels, self.split_seed, strata=y)
        if target is None:
            return splits
        test = splits.test
        shifts = {"rotated": rotated(test.x, *ANGLES, seed=0), "noisy": noisy(test.x, DEVIATION, WHITE, seed=0)}
        return replace(splits, shifts={name: replace(test, x=x) for name, x in shifts.items()})

    def preprocessor(self) -> Preprocessor:
        return Preprocessor(white=WHITE)
