"""Read pairs of conversations of which one is preferred: columns prompt, chosen and rejected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.chats import Message, check, from_list, from_prompt, is_missing, to_rows

COLUMNS = ("chosen", "rejected")
Pair = tuple[list[Message], list[Message]]  # the preferred conversation, and the other one


def to_pairs(frame: pd.DataFrame, where: str) -> list[Pair]:
    """Return the preferred and the rejected conversation of each row of a table.

    `chosen` and `rejected` are completions of `prompt`, texts or lists of messages, or complete conversations that
    start with the same messages.

    Args:
        where: what the table is called in messages.

    Raises:
        UserError: a column is missing, a conversation is malformed or has no completion, or the two of a row have no
            common prompt or are equal.
    """
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        hint = ": with a column label, set objective=kto" if "label" in frame else ""
        raise UserError(
            f"{where} has no pairs: it needs columns chosen and rejected (and prompt, unless these are complete "
            f"conversations), but has {', '.join(map(str, list(frame)[:8]))}{hint}"
        )
    pairs, equal = [], []
    cells = (frame[name] if name in frame else [None] * len(frame) for name in ("prompt", *COLUMNS))
    for row, *found in zip(frame.index, *cells):
        prompt, *completions = (None if is_missing(cell) else cell for cell in found)
        place = f"{where}, row {row}"
        one, other = (conversation(prompt, cell, place, name) for name, cell in zip(COLUMNS, completions))
        check_pair(one, other, place)
        if list(map(normalized, one)) == list(map(normalized, other)):
            equal.append(row)
        pairs.append((one, other))
    if equal:
        raise UserError(
            f"{where}: chosen and rejected are equal in {len(equal):,} of {len(pairs):,} rows, the first is row "
            f"{equal[0]}: remove these rows"
        )
    return pairs


def conversation(prompt: Any, completion: Any, where: str, column: str) -> list[Message]:
    """Return the messages of a prompt and a completion; a completion may be the complete conversation.

    Raises:
        UserError: it is malformed, there is no prompt, or the prompt is no part of the complete conversation.
    """
    place = f"{where}, column {column}"
    if completion is None or isinstance(completion, str):
        if prompt is None:
            raise UserError(
                f"{where}: {column} is a text without a prompt: add a column prompt, or give lists of messages"
            )
        messages = from_prompt({"prompt": prompt, "completion": completion}, place, False)
    else:
        messages = from_list(completion, place)
        if prompt is not None and messages:
            before = from_prompt({"prompt": prompt}, place, True)
            contents = [normalized(message)["content"] for message in messages]
            if messages[0]["role"] == "assistant":
                messages = before + messages
            elif not all(normalized(message)["content"] in contents for message in before):
                raise UserError(
                    f"{place}: it starts with {messages[0]['role']}, so it is a complete conversation, but "
                    "it does not have the text of prompt: remove the column prompt, or start with assistant"
                )
    check(messages, place)
    return messages


def check_pair(chosen: Sequence[Message], rejected: Sequence[Message], where: str) -> None:
    """Check that two conversations share a prompt and continue with a message of the assistant.

    Raises:
        UserError: they do not.
    """
    start = completion_start(chosen, rejected)
    if not start:
        raise UserError(f"{where}: chosen and rejected have no common prompt: their first messages differ")
    for name, messages in zip(COLUMNS, (chosen, rejected)):
        if start == len(messages):
            raise UserError(f"{where}: {name} has no completion: the other conversation begins with all of it")
        if messages[start]["role"] != "assistant":
            raise UserError(
                f"{where}: message {start + 1} of {name} is the first that differs, and it is of "
                f"{messages[start]['role']}: pairs may differ only from a message of assistant on"
            )


def completion_start(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Return the number of messages that two conversations share at the start; of equal ones, all but the last."""
    same = [one == other for one, other in zip(chosen, rejected)]
    if all(same) and len(chosen) == len(rejected):
        return len(same) - 1
    return same.index(False) if False in same else len(same)


def normalized(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without white space around its content, which templates remove."""
    return {**message, "content": (message.get("content") or "").strip()}


def pairs_to_rows(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return the table of `to_rows` for the preferred conversations, with a column `rejected`, the others as JSON."""
    rejected = [json.dumps(other, ensure_ascii=False) for _, other in pairs]
    return to_rows([chosen for chosen, _ in pairs]).assign(rejected=pd.Series(rejected, dtype=object))
