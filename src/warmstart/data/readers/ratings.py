"""Read conversations whose completions are rated as desirable or not: prompt, completion and label, or pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.chats import Message, to_conversations, to_rows
from warmstart.data.readers.preferences import COLUMNS, completion_start, to_pairs

PAIR = "pair (row)"  # column with the row number of the pair
LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


class Rated(NamedTuple):
    """A conversation, whether its completion is desirable, and the index of the first message of the completion."""

    messages: list[Message]
    label: bool
    first: int


def to_rated_table(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a table with a rated conversation per row; of pairs, the preferred ones are desirable, others are not.

    A row with a pair becomes two, with the columns `messages`, `label`, `first` and PAIR; other columns are kept.

    Args:
        where: what the table is called in messages.

    Raises:
        UserError: there is neither a column `label` nor a pair, or as in `to_pairs`.
    """
    is_paired = set(COLUMNS) <= set(frame)
    if "label" in frame and not is_paired:
        return frame
    if not is_paired:
        raise UserError(
            f"{where} has no ratings: it needs columns prompt, completion and label (true or false), or chosen and "
            f"rejected, but has {', '.join(map(str, list(frame)[:8]))}"
        )
    rows = [
        {"messages": messages, "label": label, "first": completion_start(*pair), PAIR: f"{where} {row}"}
        for row, pair in zip(frame.index, to_pairs(frame, where))
        for messages, label in zip(pair, (True, False))
    ]
    own = frame.drop(columns=[*COLUMNS, *(name for name in ("messages", "system", "tools") if name in frame)])
    index = np.repeat(frame.index, 2)
    return own.loc[index].assign(**pd.DataFrame(rows, index=index, dtype=object))


def to_rated(frame: pd.DataFrame, where: str) -> list[Rated]:
    """Return the rated conversation of each row of a table, as from `to_rated_table`.

    The completion is the last message, or those from `first` on.

    Args:
        where: what the table is called in messages.

    Raises:
        UserError: a label is missing or neither true nor false, the last message is not of the assistant, or as in
            `to_conversations`.
    """
    rows = []
    labels = [to_label(cell, f"{where}, row {row}") for row, cell in zip(frame.index, frame["label"])]
    firsts = frame["first"] if PAIR in frame else [None] * len(frame)
    for row, messages, label, first in zip(frame.index, to_conversations(frame, where), labels, firsts):
        if messages[-1]["role"] != "assistant":
            raise UserError(
                f"{where}, row {row}: the last message is of {messages[-1]['role']}: it must be the rated completion, "
                "of assistant"
            )
        if len(messages) < 2:
            raise UserError(f"{where}, row {row}: the completion has no prompt: add a message of user before it")
        rows.append(Rated(messages, label, len(messages) - 1 if first is None else first))
    return rows


def to_label(cell: Any, where: str) -> bool:
    """Return whether a cell is true, or 1.

    Raises:
        UserError: it is neither true nor false.
    """
    found = LABELS.get(str(cell).strip().lower())
    if found is None:
        raise UserError(f"{where}, column label: {str(cell)[:40]!r} is neither true (desirable) nor false")
    return found


def rated_to_rows(rated: Sequence[Rated]) -> pd.DataFrame:
    """Return the table of `to_rows` with the columns `label` and `first`."""
    labels, firsts = [row.label for row in rated], [row.first for row in rated]
    return to_rows([row.messages for row in rated]).assign(label=labels, first=firsts)
