"""Texts with typing errors, for shifted test splits."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

WORD = re.compile(r"[^\W\d_]{4,}")


def with_typos(texts: pd.Series, share: float, seed: int) -> pd.Series:
    """A share of the words of four letters or more misspelled: two neighbouring letters swapped, or one left out.

    The first and the last letter stay, as in Pruthi et al. 2019, Combating adversarial misspellings with robust word
    recognition. The same texts and seed give the same errors.
    """
    generator = np.random.default_rng(seed)

    def misspelled(match: re.Match[str]) -> str:
        word = match[0]
        if generator.random() >= share:
            return word
        if generator.random() < 0.5:
            at = int(generator.integers(1, len(word) - 1))
            return word[:at] + word[at + 1 :]
        at = int(generator.integers(1, len(word) - 2))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return texts.map(lambda text: WORD.sub(misspelled, text))
