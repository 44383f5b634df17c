"""Made instructions with known answers, about words of the plays included in the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from warmstart.data.sources.text.shakespeare import read_plays, words_of

ROWS, FEWEST, MOST = 3_000, 2, 3  # rows; fewest and most words of an instruction
VOCABULARY = 100  # most frequent words to choose from

TASKS: dict[str, Callable[[list[str]], str]] = {
    "Repeat": " ".join,
    "Reverse the order of": lambda words: " ".join(reversed(words)),
    "Sort from A to Z": lambda words: " ".join(sorted(words)),
    "Give the first word of": lambda words: words[0],
    "Give the last word of": lambda words: words[-1],
    "Give the longest word of": lambda words: max(words, key=len),
}


def make_instructions(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Return different instructions (column `prompt`) with their answers (`completion`), in random order.

    The longest word of an instruction is unique.
    """
    generator = np.random.default_rng(seed)
    vocabulary = words_of(read_plays(), VOCABULARY)
    found: dict[str, str] = {}
    while len(found) < rows:
        task = list(TASKS)[int(generator.integers(len(TASKS)))]
        count = int(generator.integers(FEWEST, MOST + 1))
        words = [vocabulary[number] for number in generator.choice(len(vocabulary), count, replace=False)]
        lengths = sorted(map(len, words))
        if task == "Give the longest word of" and lengths[-1] == lengths[-2]:
            continue
        found[f"{task}: {' '.join(words)}"] = TASKS[task](words)
    return pd.DataFrame({"prompt": list(found), "completion": list(found.values())}, dtype=object)
