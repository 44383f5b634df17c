"""Scores of a generated text against a reference, from 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORD = re.compile(r"[a-z0-9]+")


def rouge_l(generated: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words (Lin 2004, "ROUGE"), as the package rouge-score does.

    Words are runs of the letters a-z, after lower-casing, and of digits; a text without words has the score 0.
    """
    one, other = (WORD.findall(text.lower()) for text in (generated, reference))
    common = longest_common_subsequence(one, other)
    return 2 * common / (len(one) + len(other)) if common else 0.0


def exact_match(generated: str, reference: str) -> float:
    """Return whether two texts are equal, except for white space."""
    return float(generated.split() == reference.split())


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    The bits of an integer are a row of the table of dynamic programming, as in Hyyro (2004), "Bit-parallel LCS-length
    computation revisited".
    """
    positions: dict[str, int] = {}
    for index, word in enumerate(one):
        positions[word] = positions.get(word, 0) | 1 << index
    row = every = (1 << len(one)) - 1
    for word in other:
        matching = row & positions.get(word, 0)
        row = (row + matching | row - matching) & every
    return len(one) - row.bit_count()
