"""Prompts that a language model continues with the word of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.storage.ragged import Ragged

if TYPE_CHECKING:
    from warmstart.data.preprocess.text import Preprocessor

NAMES = {"text": "Text: ", "pair": "\nSecond text: "}
ANSWER, BETWEEN = "\nLabel:", "\n\n"  # before the word of a class, and between two examples


def word_numbers(preprocessor: Preprocessor, words: Sequence[str]) -> tuple[int, ...]:
    """Return the token number of each word after a prompt.

    Raises:
        UserError: a word is no single token, or two words are the same token.
    """
    found: dict[int, str] = {}
    before = _numbers(preprocessor, ANSWER)
    for word in words:
        after = _numbers(preprocessor, f"{ANSWER} {word}")
        own = after[len(before) :]
        if after[: len(before)] != before or len(own) != 1 or own[0] == preprocessor.vocabulary.unknown:
            raise UserError(
                f"the label word {word!r} is no single token of the model: set data.label_words={{CLASS: WORD}}"
            )
        if own[0] in found:
            raise UserError(f"the label words {found[own[0]]!r} and {word!r} are the same token: set data.label_words")
        found[own[0]] = word
    return tuple(found)


def prompts(
    preprocessor: Preprocessor, x: pd.DataFrame, examples: pd.DataFrame | None = None, words: Sequence[str] = ()
) -> Ragged:
    """Return the token numbers of prompts, each after as many examples as fit into the context.

    A text that does not fit is truncated.

    Args:
        x: columns `text` and, optional, `pair`.
        examples: rows with the same columns.
        words: the words of their classes.
    """
    begin, answer = list(_begin(preprocessor)), _numbers(preprocessor, ANSWER)
    room = preprocessor.context - len(begin) - len(answer)
    rows = [text[:room] + answer for text in _texts(preprocessor, x)]
    shown: list[list[int]] = []
    if examples is not None:
        ends = [_numbers(preprocessor, f"{ANSWER} {word}{BETWEEN}") for word in words]
        shown = [text + end for text, end in zip(_texts(preprocessor, examples), ends)]
        sizes = np.cumsum([len(one) for one in shown])
        left = preprocessor.context - len(begin)
        counts = [int(np.searchsorted(sizes, left - len(row), side="right")) for row in rows]
        rows = [[number for one in shown[:count] for number in one] + row for count, row in zip(counts, rows)]
        screen.say(f"examples in the context: {np.mean(counts):.1f} of {len(shown)} on average")
    rows = [begin + row for row in rows]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    values = np.array([number for row in rows for number in row], dtype=np.int32)
    return Ragged(values, np.cumsum([0, *lengths]), lengths, preprocessor.vocabulary.padding, preprocessor.context)


def _texts(preprocessor: Preprocessor, x: pd.DataFrame) -> list[list[int]]:
    """Return the token numbers of the texts, with their names."""
    rows = ["".join(f"{NAMES[name]}{cell}" for name, cell in zip(x, cells)) for cells in x.itertuples(index=False)]
    found = preprocessor.backend_tokenizer.encode_batch_fast(rows, add_special_tokens=False)
    return [one.ids for one in found]


def _numbers(preprocessor: Preprocessor, text: str) -> list[int]:
    """Return the token numbers of a text without special tokens."""
    return preprocessor.backend_tokenizer.encode(text, add_special_tokens=False).ids


def _begin(preprocessor: Preprocessor) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text."""
    found = preprocessor.backend_tokenizer.encode("a")
    count = next((n for n, special in enumerate(found.special_tokens_mask) if not special), 0)
    return found.ids[:count]
