"""Encode transcripts as characters, or as subwords trained on the training texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from warmstart.core.errors import UserError

SPACE = "▁"  # as in SentencePiece (Kudo and Richardson 2018)


def alphabet(texts: Sequence[str], pieces: int | None = None) -> tuple[str, ...]:
    """Return the sorted labels of transcripts, in which ▁ is the space.

    Args:
        texts: training texts.
        pieces: maximum number of labels, trained by byte-pair encoding (Sennrich et al. 2016); None for characters.

    Raises:
        UserError: there are more characters than `pieces`.
    """
    characters = {character for text in texts for character in with_spaces(text)}
    if pieces is None:
        return tuple(sorted(characters))
    if pieces < len(characters):
        raise UserError(
            f"data.pieces={pieces}: the texts have {len(characters)} different characters: use a larger value"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=pieces, show_progress=False))
    return tuple(sorted(characters | set(tokenizer.get_vocab())))


def encode(texts: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Encode each transcript as a list of label indices (N,), by greedy longest match.

    Args:
        texts: transcripts.
        labels: labels.
        names: names of the transcripts in messages.

    Raises:
        UserError: a character is in no label.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    longest = sorted(map(re.escape, labels), key=len, reverse=True)
    pattern = re.compile("|".join(longest))
    rows = np.empty(len(texts), dtype=object)
    unknown = []
    for row, text in enumerate(map(with_spaces, texts)):
        found = pattern.findall(text)
        if sum(map(len, found)) != len(text):
            unknown.append(row)
        rows[row] = [numbers[label] for label in found]
    if unknown:
        unseen = sorted(set(with_spaces(texts[unknown[0]])) - set("".join(labels)))
        raise UserError(
            f"{names[unknown[0]]}: {' '.join(unseen)!r} is in no training text, so it cannot be encoded; "
            f"{len(unknown):,} of {len(texts):,} texts are like this: remove them, or the characters"
        )
    return rows


def with_spaces(text: str) -> str:
    """Return a text without spaces, with ▁ before each word."""
    return "".join(SPACE + word for word in text.split())
