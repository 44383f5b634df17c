"""Tags of words that mark entities: the schemes BIO and BIOES.

The first letter of a tag is the position of a word in an entity (begin, inside, end, single, or outside), and after a
hyphen follows the type of the entity: B-PER, I-PER, O."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

OUTSIDE = "O"
ENDS = ("E", "S")  # letters of BIOES that BIO does not have


class Entity(NamedTuple):
    """An entity: its type, and its first and last word."""

    type: str
    first: int
    last: int


def scheme_of(labels: Collection[str]) -> str | None:
    """Return BIO or BIOES, the scheme of all labels of a data set; None if they mark no entities."""
    letters = {label[:1] for label in labels}
    if not letters <= {"B", "I", OUTSIDE, *ENDS} or not letters - {OUTSIDE}:
        return None
    if not all(label == OUTSIDE or (label[0] != OUTSIDE and label[1:2] == "-" and label[2:]) for label in labels):
        return None
    return "BIOES" if letters & set(ENDS) else "BIO"


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """Yield the entities of a sentence, by the rules of conlleval, which are the default of seqeval.

    Every sequence of tags has entities: a word of another type than that before it, or inside or at the end of an
    entity that no word began, begins one.

    Source: Tjong Kim Sang, Buchholz (2000), "Introduction to the CoNLL-2000 Shared Task: Chunking"
    """
    first, before = None, OUTSIDE
    for position, tag in enumerate((*tags, OUTSIDE)):
        continues = tag[0] in "IE" and before[0] in "BI" and tag[2:] == before[2:]
        if first is not None and not continues:
            yield Entity(before[2:], first, position - 1)
            first = None
        if tag != OUTSIDE and first is None:
            first = position
        before = tag


def first_invalid(tags: Sequence[str], scheme: str) -> int | None:
    """Return the index of the first tag that is not valid after the tag before it; None if all are valid."""
    before = OUTSIDE
    for position, tag in enumerate((*tags, OUTSIDE)):
        is_open = before[0] in "BI"
        continues = tag[0] in "IE"
        fits = is_open and tag[2:] == before[2:]
        if (continues and not fits) or (scheme == "BIOES" and is_open and not continues):
            return min(position, len(tags) - 1)
        before = tag
    return None


def repaired(tags: Sequence[str], scheme: str) -> list[str]:
    """Return valid tags of the same entities."""
    found = [OUTSIDE] * len(tags)
    for kind, first, last in entities(tags):
        found[first : last + 1] = [f"I-{kind}"] * (last + 1 - first)
        found[first] = f"B-{kind}"
        if scheme == "BIOES":
            found[last] = f"E-{kind}" if last > first else f"S-{kind}"
    return found
