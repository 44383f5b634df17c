"""SST-2: sentences from film reviews, negative or positive (Socher et al. 2013)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location
from warmstart.data.readers.columns import pick, to_names, to_texts
from warmstart.data.readers.splits import describe, read_splits
from warmstart.data.sources.text.sst2_shifts import read_reviews, with_typos

LABELS = ("negative", "positive")
NUMBERS = {"0": 0, "1": 1, **{label: number for number, label in enumerate(LABELS)}}
PARTS = ("train", "validation", "test")
TYPOS = 0.2  # share of the longer words


class SST2(Source):
    """Official splits of 6,920, 872 and 1,821 sentences, with a shifted test split with typing errors (`typos`).

    Args:
        tokenizer: constructor of the preprocessor.
        root: a hub name, or a local folder with the layout of the hub, with columns `text` or `sentence`, and `label`.
        reviews: data set of complete reviews, with columns `text` and `label`, as a further test split; None for none.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location = "SetFit/sst2",
        reviews: str | None = None,
    ):
        self.tokenizer, self.root, self.reviews = tokenizer, root, reviews

    def load(self, target: str | None) -> Splits:
        """Return sentences and class indices (N,).

        Raises:
            UserError: a part or a column is missing, or a sentence or a review has no label.
        """
        parts = [self._rows(name, target) for name in PARTS]
        if target is None:
            return Splits(*parts, labels=LABELS)
        test = parts[-1]
        shifts = {"typos": Rows(test.x.assign(text=with_typos(test.x.text, TYPOS, seed=0)), test.y)}
        if self.reviews is not None:
            shifts["reviews"] = read_reviews(self.reviews)
        return Splits(*parts, labels=LABELS, shifts=shifts)

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=[self.column])

    @functools.cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        """Tables of the splits."""
        frames = read_splits(self.root)
        missing = [name for name in PARTS if name not in frames]
        if missing:
            raise UserError(f"data.root={self.root} has no split {missing[0]}: it has {', '.join(frames)}")
        return frames

    @property
    def column(self) -> str:
        """Name of the column of sentences."""
        return "sentence" if "sentence" in self.frames["train"] else "text"

    def _rows(self, split: str, target: str | None) -> Rows:
        frame, where = self.frames[split], describe(self.root, split, self.frames)
        x = pd.DataFrame({"text": to_texts(pick(frame, self.column, where), where)})
        if target is None:
            return Rows(x)
        y = pd.Series(to_names(pick(frame, "label", where), where)).map(NUMBERS)
        if y.isna().any():
            row = int(np.flatnonzero(y.isna())[0])
            raise UserError(f"{where}, row {row + 1}: label {frame.label.iloc[row]}, but 0 or 1 is expected")
        return Rows(x, y.to_numpy(dtype=np.int64))
