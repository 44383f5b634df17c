"""Unlabelled film reviews: generic texts similar to the sentences of SST-2."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed
from warmstart.data.readers.columns import pick, to_texts
from warmstart.data.readers.splits import read_splits
from warmstart.data.splits import reset_index, split_rows


class FilmReviews(Source):
    """Reviews of the train split of a data set, split 90 : 5 : 5.

    Args:
        tokenizer: constructor of the preprocessor.
        root: a hub name or local folder with a column `text`: by default the 25,000 reviews of IMDb (Maas et al. 2011);
            the 2,000 of Pang and Lee (2004) can be used too.
        split_seed: seed of the split.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset()

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location = "stanfordnlp/imdb",
        split_seed: Seed = 0,
    ):
        self.tokenizer, self.root, self.split_seed = tokenizer, root, split_seed

    def load(self, target: str | None) -> Splits:
        """Return texts, with HTML line breaks replaced by newlines."""
        frames = read_splits(self.root)
        where = f"data.root={self.root}"
        texts = to_texts(pick(frames.get("train", next(iter(frames.values()))), "text", where), where)
        rows = Rows(pd.DataFrame({"text": texts.str.replace("<br />", "\n", regex=False)}))
        return reset_index(split_rows(rows, (), self.split_seed, None, validation=0.05, test=0.05))

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["text"])
