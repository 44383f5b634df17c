"""IMDb: film reviews, negative or positive, and as many unlabelled ones (Maas et al. 2011)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed
from warmstart.data.readers.columns import pick, to_classes, to_texts
from warmstart.data.readers.splits import read_splits
from warmstart.data.splits import reset_index

LABELS = ("negative", "positive")
NUMBERS = {"0": 0, "1": 1, "neg": 0, "pos": 1}


class IMDb(Source):
    """Official test split, with a tenth of the training split for validation, and unlabelled reviews for pretraining.

    Args:
        tokenizer: constructor of the preprocessor.
        root: a hub name, or a local folder with the layout of the hub, with columns `text` and `label`.
        split_seed: seed of the split.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(
        self, tokenizer: Callable[..., Preprocessor], root: Location = "stanfordnlp/imdb", split_seed: Seed = 0
    ):
        self.tokenizer, self.root, self.split_seed = tokenizer, root, split_seed

    def load(self, target: str | None) -> Splits:
        """Return reviews and class indices (N,).

        Raises:
            UserError: a part or a column is missing, or a review of the train or test part has no label.
        """
        frames = read_splits(self.root)
        missing = [name for name in ("train", "test") if name not in frames]
        if missing:
            raise UserError(f"data.root={self.root} has no split {missing[0]}: it has {', '.join(frames)}")
        train, test = (self._rows(frames[name], name) for name in ("train", "test"))
        kept, held = train_test_split(
            np.arange(len(train)), test_size=0.1, random_state=self.split_seed, stratify=train.y
        )
        spare = frames.get("unsupervised", frames["train"].iloc[:0])
        unlabelled = Rows(self._texts(spare, "unsupervised"))
        splits = Splits(train.take(np.sort(kept)), train.take(np.sort(held)), test, LABELS, unlabelled)
        return reset_index(splits)

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["text"])

    def _texts(self, frame: pd.DataFrame, split: str) -> pd.DataFrame:
        where = f"data.root={self.root}, split {split}"
        texts = to_texts(pick(frame, "text", where), where) if len(frame) else pd.Series([], dtype=object)
        return pd.DataFrame({"text": texts.str.replace("<br />", "\n", regex=False)})

    def _rows(self, frame: pd.DataFrame, split: str) -> Rows:
        where = f"data.root={self.root}, split {split}"
        return Rows(self._texts(frame, split), to_classes(pick(frame, "label", where), NUMBERS, where))
