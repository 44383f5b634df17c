"""Sentences that come in words, with a class for each: the first token of a word carries it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from warmstart.core.errors import UserError
from warmstart.data.storage.ragged import Ragged

if TYPE_CHECKING:
    from warmstart.data.preprocess.text import Preprocessor


CHUNK = 2_000  # sentences tokenised at a time
NONE = -100  # what a token without a class has, as in transformers


def align(preprocessor: Preprocessor, x: pd.DataFrame, y: Sequence[list[int]] | None) -> tuple[Ragged, Ragged]:
    """Tokens, and rows of the same lengths with the class of a word at its first token and -100 everywhere else.

    A word of which the tokenizer keeps nothing becomes the unknown token, so that every word has one.

    Args:
        preprocessor: has the tokenizer.
        x: lists of words in the column `text`; a string is split at spaces.
        y: the words' class numbers (N); None where they are not known, which puts 0 at the first tokens.

    Raises:
        UserError: the tokenizer keeps nothing of a word and has no unknown token, or a row is too long.
    """
    sentences = [cell.split() if isinstance(cell, str) else list(cell) for cell in x["text"]]
    if "ByteLevel" in json.dumps(json.loads(preprocessor.tokenizer)["pre_tokenizer"]):
        sentences = [[word if n == 0 else f" {word}" for n, word in enumerate(words)] for words in sentences]
    begins = _begins(preprocessor, sentences)
    tokens = preprocessor.encode(pd.DataFrame({"text": sentences}))
    values = np.full(len(tokens.values), NONE, dtype=np.int32)
    for row, begin in enumerate(begins):
        values[tokens.starts[row] + begin] = 0 if y is None else y[row]
    suffix = (NONE,) * len(tokens.suffix)
    return tokens, Ragged(values, tokens.starts, tokens.whole, NONE, tokens.context, suffix)


def _begins(preprocessor: Preprocessor, sentences: list[list[str]]) -> list[np.ndarray]:
    """The position of each word's first token, for each sentence; words without any are replaced in place."""
    cutter = Tokenizer.from_str(preprocessor.tokenizer)
    cutter.no_padding()
    cutter.no_truncation()
    begins = []
    for start in range(0, len(sentences), CHUNK):
        chunk = sentences[start : start + CHUNK]
        for row, found in enumerate(cutter.encode_batch(chunk, is_pretokenized=True), start):
            words = sentences[row]
            for lost in set(range(len(words))) - set(found.word_ids):
                unknown = preprocessor.roles["unknown"]
                if unknown is None:
                    raise UserError(f"row {row + 1}: the tokenizer keeps nothing of word {lost + 1} ({words[lost]!r})")
                words[lost] = unknown
                found = None
            found = found or cutter.encode(words, is_pretokenized=True)
            of = np.array([-1 if word is None else word for word in found.word_ids])
            begins.append(np.flatnonzero((of >= 0) & (np.diff(of, prepend=-1) != 0)))
    return begins
