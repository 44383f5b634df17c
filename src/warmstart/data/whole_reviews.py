"""Labelled whole reviews, by which a model of single sentences is tested."""

from __future__ import annotations

import numpy as np
import pandas as pd

from warmstart.contracts import Rows, UserError
from warmstart.data.readers.columns import pick, to_names, to_texts
from warmstart.data.readers.splits import read_splits

OPTION = "data.reviews"
MOST = 2000
NUMBERS = {"0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1}


def read_reviews(root: str) -> Rows:
    """At most 2,000 reviews of the split test, or of the first where there is none: always the same ones.

    Args:
        root: a hub name, a file or a local folder in the hub's layout, with columns `text` and `label`.

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
        raise UserError(f"{where}, row {row + 1}: label {frame.label.iloc[row]}, where 0 or 1 is expected")
    kept = np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST])
    x = pd.DataFrame({"text": texts.iloc[kept].reset_index(drop=True)})
    return Rows(x, y.to_numpy(dtype=np.int64)[kept])
