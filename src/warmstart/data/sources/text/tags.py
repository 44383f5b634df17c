"""Targets of token classification: a list of tags for each sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.tags import first_invalid, repaired, scheme_of


def valid_tags(
    parts: Mapping[str, pd.Series], position: Callable[[str, int, int], str], root: str, repair: bool
) -> dict[str, pd.Series]:
    """Return the tags of the sentences of each split, which are valid if they mark entities (BIO or BIOES).

    Args:
        parts: lists of tags, or None, by split.
        position: returns the position of a word for messages, given its split, sentence and index.
        root: setting data.root, for messages.
        repair: whether to replace invalid sequences by valid ones of the same entities (`core.tags.entities`).

    Raises:
        UserError: tags are invalid, and `repair` is false.
    """
    scheme = scheme_of({tag for column in parts.values() for tags in column.dropna() for tag in tags})
    if scheme is None:
        return dict(parts)
    invalid = [
        (name, row, word)
        for name, column in parts.items()
        for row, tags in enumerate(column)
        if tags is not None and (word := first_invalid(tags, scheme)) is not None
    ]
    count = f"{len(invalid):,} sentence{'' if len(invalid) == 1 else 's'}"
    if invalid and not repair:
        name, row, word = invalid[0]
        before, tag, after = ("the start", *parts[name].iloc[row], "the end")[word : word + 3]
        raise UserError(
            f"{position(name, row, word)}: the tag {tag}, between {before} and {after}, is not valid in {scheme} "
            f"({count} with such tags): correct it, or set data.repair_tags=true"
        )
    if invalid:
        screen.say(f"data.root={root}: {count} with tags that are not valid in {scheme}: they are repaired")
    found = {name: column.copy() for name, column in parts.items()}
    for name, row, _ in invalid:
        found[name].iat[row] = repaired(parts[name].iloc[row], scheme)
    return found


def encode_tags(column: pd.Series, root: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return lists of class indices (N,) and the sorted tags.

    Raises:
        UserError: there is only one tag.
    """
    labels = tuple(sorted({tag for tags in column for tag in tags}))
    if len(labels) < 2:
        raise UserError(f"data.root={root}: every word has the tag {labels[0]}: two are needed")
    numbers = {label: number for number, label in enumerate(labels)}
    rows = pd.Series([[numbers[tag] for tag in tags] for tags in column], dtype=object)
    return rows.to_numpy(), labels
