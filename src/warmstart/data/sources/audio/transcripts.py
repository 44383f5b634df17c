"""What was said, as numbers: characters, or pieces of words that are learned from the training texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from warmstart.core.errors import UserError

SPACE = "▁"  # as SentencePiece shows it (Kudo and Richardson 2018)


def alphabet(texts: Sequence[str], pieces: int | None = None) -> tuple[str, ...]:
    """The labels that transcripts are spelled with, sorted; a space is shown as ▁.

    Args:
        texts: those to train on.
        pieces: how many labels at most, learned by byte-pair encoding (Sennrich et al. 2016); None for characters.

    Raises:
        UserError: there are more characters than that.
    """
    characters = {character for text in texts for character in marked(text)}
    if pieces is None:
        return tuple(sorted(characters))
    if pieces < len(characters):
        raise UserError(f"data.pieces={pieces}: the texts have {len(characters)} different characters: give more")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=pieces, show_progress=False))
    return tuple(sorted(characters | set(learner.get_vocab())))


def spelled(texts: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Each transcript as a list of label numbers (N,), the longest label that fits first.

    Args:
        texts: transcripts.
        labels: what they are spelled with.
        names: what a message calls each.

    Raises:
        UserError: a character is in no label; the first is named, with the count.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    longest = sorted(map(re.escape, labels), key=len, reverse=True)
    pattern = re.compile("|".join(longest))
    rows = np.empty(len(texts), dtype=object)
    unknown = []
    for row, text in enumerate(map(marked, texts)):
        found = pattern.findall(text)
        if sum(map(len, found)) != len(text):
            unknown.append(row)
        rows[row] = [numbers[label] for label in found]
    if unknown:
        lost = sorted(set(marked(texts[unknown[0]])) - set("".join(labels)))
        raise UserError(
            f"{names[unknown[0]]}: {' '.join(lost)!r} is in no text to train on, so it cannot be written; "
            f"{len(unknown):,} of {len(texts):,} texts are like this: remove them, or the characters"
        )
    return rows


def marked(text: str) -> str:
    """A text as it is spelled: each word with a ▁ before it."""
    return "".join(SPACE + word for word in text.split())
