"""SST-2: sentences from film reviews, negative or positive (Socher et al. 2013)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location
from warmstart.data.readers.columns import pick, to_classes, to_texts
from warmstart.data.readers.splits import describe, read_splits

LABELS = ("negative", "positive")
NUMBERS = {"0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1}
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
        self, tokenizer: Callable[..., Preprocessor], root: Location = "SetFit/sst2", reviews: str | None = None
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
        shifts = {"typos": replace(test, x=test.x.assign(text=with_typos(test.x.text, TYPOS, seed=0)))}
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
        return Rows(x, to_classes(pick(frame, "label", where), NUMBERS, where))


WORD = re.compile(r"[^\W\d_]{4,}")


def with_typos(texts: pd.Series, share: float, seed: int) -> pd.Series:
    """Misspell a share of the words of four or more letters: swap two adjacent letters, or remove one.

    The first and the last letter are unchanged, as in Pruthi et al. (2019), "Combating adversarial misspellings with
    robust word recognition". The errors are determined by the texts and the seed.
    """
    generator = np.random.default_rng(seed)

    def misspell(match: re.Match[str]) -> str:
        word = match[0]
        if generator.random() >= share:
            return word
        if generator.random() < 0.5:
            at = int(generator.integers(1, len(word) - 1))
            return word[:at] + word[at + 1 :]
        at = int(generator.integers(1, len(word) - 2))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return texts.map(lambda text: WORD.sub(misspell, text))


OPTION = "data.reviews"
MAX_REVIEWS = 2000


def read_reviews(root: str) -> Rows:
    """Return up to 2,000 reviews of the split test, or of the first split; the choice is deterministic.

    Args:
        root: a hub name, a file or a local folder with the layout of the hub, with columns `text` and `label`.

    Raises:
        UserError: it cannot be read, a column is missing, or a review is empty or has no label.
    """
    frames = read_splits(root, option=OPTION)
    name = "test" if "test" in frames else next(iter(frames))
    frame, where = frames[name], f"{OPTION}={root}, split {name}"
    texts = to_texts(pick(frame, "text", where), where).str.replace("<br />", "\n", regex=False)
    y = to_classes(pick(frame, "label", where), NUMBERS, where)
    kept = np.sort(np.random.default_rng(0).permutation(len(texts))[:MAX_REVIEWS])
    x = pd.DataFrame({"text": texts.iloc[kept].reset_index(drop=True)})
    return Rows(x, y[kept])
