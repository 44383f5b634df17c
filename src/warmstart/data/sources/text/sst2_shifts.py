"""Shifted test splits of SST-2: sentences with typing errors, and complete film reviews."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from warmstart.core.batch import Rows
from warmstart.core.errors import UserError
from warmstart.data.readers.columns import pick, to_names, to_texts
from warmstart.data.readers.splits import read_splits

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
NUMBERS = {"0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1}


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
    y = pd.Series(to_names(pick(frame, "label", where), where)).map(NUMBERS)
    if y.isna().any():
        row = int(np.flatnonzero(y.isna())[0])
        raise UserError(f"{where}, row {row + 1}: label {frame.label.iloc[row]}, but 0 or 1 is expected")
    kept = np.sort(np.random.default_rng(0).permutation(len(texts))[:MAX_REVIEWS])
    x = pd.DataFrame({"text": texts.iloc[kept].reset_index(drop=True)})
    return Rows(x, y.to_numpy(dtype=np.int64)[kept])
