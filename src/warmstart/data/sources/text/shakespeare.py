"""Tiny Shakespeare: 1,115,394 characters of his plays, as collected for char-rnn (Karpathy 2015)."""

from __future__ import annotations

import hashlib
import lzma
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source

FILE = Path(__file__).parents[1] / "files" / "shakespeare.txt.xz"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class Shakespeare(Source):
    """Text included in the package; the first 90 % are for training, the rest for validation, as usual.

    Args:
        tokenizer: constructor of the preprocessor.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset()

    def __init__(self, tokenizer: Callable[..., Preprocessor]):
        self.tokenizer = tokenizer

    def load(self, target: str | None) -> Splits:
        """Return one row of 1,003,854 and one of 111,540 characters, and an empty test part."""
        text = read_plays()
        cut = int(0.9 * len(text))
        parts = ([text[:cut]], [text[cut:]], [])
        return Splits(*(Rows(pd.DataFrame({"text": part}, dtype=str)) for part in parts))

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["text"])


def read_plays() -> str:
    """Return the text of the plays.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        data = lzma.decompress(FILE.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise UserError(f"{FILE} cannot be read ({error}): install warmstart again") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(f"{FILE} is damaged: install warmstart again")
    return data.decode()


def words_of(text: str, count: int) -> list[str]:
    """Return the most frequent words of four to eight lower-case letters, most frequent first."""
    found = Counter(re.findall(r"\b[a-z]{4,8}\b", text))
    return sorted(found, key=lambda word: (-found[word], word))[:count]
