"""Tokenize sentences that are split into words, with the class of each word at its first token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.storage.ragged import Ragged

if TYPE_CHECKING:
    from warmstart.data.preprocess.text import Preprocessor


CHUNK = 2_000  # sentences tokenized at a time
NONE = -100  # target of tokens without a class, as in transformers


def align(preprocessor: Preprocessor, x: pd.DataFrame, y: Sequence[list[int]] | None) -> tuple[Ragged, Ragged]:
    """Return tokens, and targets of the same lengths: the class of a word at its first token, -100 elsewhere.

    A word without tokens is replaced by the unknown token, so that every word has a token.

    Args:
        preprocessor: has the tokenizer.
        x: lists of words in the column `text`; a string is split at spaces.
        y: class indices of the words (N); None if unknown, which sets the first tokens to 0.

    Raises:
        UserError: a word has no tokens and there is no unknown token, or a row is too long.
    """
    sentences = [cell.split() if isinstance(cell, str) else list(cell) for cell in x["text"]]
    if "ByteLevel" in json.dumps(json.loads(preprocessor.tokenizer)["pre_tokenizer"]):
        sentences = [[word if n == 0 else f" {word}" for n, word in enumerate(words)] for words in sentences]
    begins = _first_tokens(preprocessor, sentences)
    tokens = preprocessor.encode(pd.DataFrame({"text": sentences}))
    values = np.full(len(tokens.values), NONE, dtype=np.int32)
    for row, begin in enumerate(begins):
        values[tokens.starts[row] + begin] = 0 if y is None else y[row]
    suffix = (NONE,) * len(tokens.suffix)
    return tokens, Ragged(values, tokens.starts, tokens.full_lengths, NONE, tokens.context, suffix)


def _first_tokens(preprocessor: Preprocessor, sentences: list[list[str]]) -> list[np.ndarray]:
    """Return the positions of the words' first tokens; words without tokens are replaced in place."""
    tokenizer = preprocessor.backend_tokenizer
    begins = []
    for start in range(0, len(sentences), CHUNK):
        chunk = sentences[start : start + CHUNK]
        for row, found in enumerate(tokenizer.encode_batch(chunk, is_pretokenized=True), start):
            words = sentences[row]
            for empty in set(range(len(words))) - set(found.word_ids):
                unknown = preprocessor.roles["unknown"]
                if unknown is None:
                    raise UserError(f"row {row + 1}: word {empty + 1} ({words[empty]!r}) has no tokens")
                words[empty] = unknown
                found = None
            found = found or tokenizer.encode(words, is_pretokenized=True)
            word_ids = np.array([-1 if word is None else word for word in found.word_ids])
            begins.append(np.flatnonzero((word_ids >= 0) & (np.diff(word_ids, prepend=-1) != 0)))
    return begins


def locate(x: pd.DataFrame, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield records with the text and the characters of their entities, whose `start` and `end` are words.

    For a list of words, the characters are those of the words joined by spaces.

    Args:
        x: texts or lists of words in the column `text`.
        records: predictions; those without entities are not changed.
    """
    for cell, record in zip(x["text"], records, strict=True):
        if not record.get("entities"):
            yield record
            continue
        text = cell if isinstance(cell, str) else " ".join(cell)
        spans = [match.span() for match in re.finditer(r"\S+", cell)] if isinstance(cell, str) else joined(cell)
        ranges = [(spans[found["start"]][0], spans[found["end"] - 1][1]) for found in record["entities"]]
        yield record | {
            "entities": [
                {"text": text[start:end], **found, "start": start, "end": end}
                for found, (start, end) in zip(record["entities"], ranges)
            ]
        }


def joined(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the first character and the end of each word in the words joined by spaces."""
    ends = [end + number for number, end in enumerate(accumulate(map(len, words)))]
    return [(end - len(word), end) for word, end in zip(words, ends)]
