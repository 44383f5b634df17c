"""Spell transcripts as labels for connectionist temporal classification (CTC)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from warmstart.core.errors import UserError
from warmstart.data.storage.ragged import Ragged

SPACE = "▁"  # as in SentencePiece (Kudo and Richardson 2018)
NONE = -1  # label of padding


def alphabet(texts: Sequence[str], pieces: int | None = None) -> tuple[str, ...]:
    """Return the sorted labels of transcripts, in which ▁ is the space.

    Args:
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


def spell(texts: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """Return the label indices of each text, by greedy longest match; `names` of recordings are for messages.

    Raises:
        UserError: a character is in no label.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    longest = sorted(map(re.escape, labels), key=len, reverse=True)
    pattern = re.compile("|".join(longest))
    rows, unknown = [], []
    for row, text in enumerate(map(with_spaces, texts)):
        found = pattern.findall(text)
        if sum(map(len, found)) != len(text):
            unknown.append(row)
        rows.append([numbers[label] for label in found])
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


def fitting(
    rows: Sequence[Sequence[int]], positions: np.ndarray, names: Sequence[str], seconds: float, remedy: str
) -> Ragged:
    """Return label indices, padded with -1, after checking that CTC can align them.

    Args:
        rows: label indices of each recording (N).
        positions: number of positions of each recording (N,).
        names: names of the recordings, for messages.
        seconds: seconds between positions.
        remedy: alternatives to removing a transcript that is too long, for a message.

    Raises:
        UserError: a recording has fewer positions than labels plus blanks between equal adjacent labels.
    """
    needed = np.array([len(row) + sum(a == b for a, b in itertools.pairwise(row)) for row in rows])
    if (wrong := np.flatnonzero(needed > positions)).size:
        row = wrong[0]
        raise UserError(
            f"{names[row]}: its text of {len(rows[row])} labels does not fit into its {positions[row]} "
            f"positions of {seconds:g} s; {len(wrong):,} of {len(rows):,} utterances are like this: remove them{remedy}"
        )
    lengths = np.array([len(row) for row in rows])
    flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
    return Ragged(flat, np.cumsum([0, *lengths]), lengths, NONE, int(lengths.max()))
