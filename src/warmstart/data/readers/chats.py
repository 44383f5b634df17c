"""Read conversations: OpenAI messages, ShareGPT, Alpaca, and columns of prompts and completions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from warmstart.core.batch import Prompt
from warmstart.core.errors import UserError
from warmstart.data.readers.records import SURROGATE

Message = dict[str, Any]  # `role` and `content`, and what else a chat template may use

ROLES = ("system", "user", "assistant", "tool")
NAMES = {  # roles of ShareGPT and of other formats
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
}
SHOWN = 40  # characters of a text in a message


def to_conversations(frame: pd.DataFrame, where: str) -> list[list[Message]]:
    """Return the messages of each row of a table.

    The format is that of the first of these columns: `messages`, a list of role and content; `conversations`, a list
    of from and value; `instruction`, optional `input` and `output`, and `history`, a list of earlier pairs of question
    and answer; `prompt` and `completion`, which are texts or lists of messages. Lists may be JSON texts. An optional
    column `system` is the first message. Roles are system, user, assistant and tool.

    Args:
        where: what the table is called in messages.

    Raises:
        UserError: there are no such columns, or a row has no messages, an unknown role, an empty message, tools, or no
            message of the assistant.
    """
    return [messages for _, messages in _rows(frame, where, False)]


def to_prompts(frame: pd.DataFrame, where: str) -> list[Prompt]:
    """Return what precedes the completion of each row, with the completion as reference, if there is one.

    The completion is the last message, if it is one of the assistant. The format is that of `to_conversations`.

    Args:
        where: what the table is called in messages.

    Raises:
        UserError: as in `to_conversations`, but a row needs no message of the assistant.
    """
    return [as_prompt(messages, row) for row, messages in _rows(frame, where, True)]


def as_prompt(messages: list[Message], row: int | None = None) -> Prompt:
    """Return what precedes the completion of a conversation, with the completion as reference, if there is one."""
    if messages[-1]["role"] != "assistant":
        return Prompt(messages, row)
    return Prompt(messages[:-1], row, messages[-1].get("content") or "")


def user(content: str) -> list[Message]:
    """Return a conversation of one message of a user."""
    return [{"role": "user", "content": content}]


def _rows(frame: pd.DataFrame, where: str, is_prompt: bool) -> Iterator[tuple[int, list[Message]]]:
    """Yield the row number and the messages of each row; `is_prompt` if the completion may be missing."""
    read = next((read for column, read in FORMATS.items() if column in frame), None)
    if read is None:
        raise UserError(
            f"{where} has no conversations: it needs a column messages, conversations, instruction (with output) or "
            f"prompt (with completion), but has {', '.join(map(str, list(frame)[:8]))}"
        )
    columns = {str(name): [None if is_missing(cell) else cell for cell in frame[name]] for name in frame}
    for position, row in enumerate(frame.index.tolist()):
        cells = {name: cells[position] for name, cells in columns.items()}
        place = f"{where}, row {row}"
        if not is_empty(cells.get("tools")):
            raise UserError(f"{place}: column tools is not supported, as chat templates get messages only: remove it")
        messages = with_system(read(cells, place, is_prompt), cells.get("system"), place)
        check(messages, place, is_prompt)
        yield row, messages


def is_missing(cell: Any) -> bool:
    """Return whether a cell of a table is empty."""
    return cell is None or (not isinstance(cell, list | tuple | dict | np.ndarray | str) and bool(pd.isna(cell)))


def is_empty(cell: Any) -> bool:
    """Return whether a cell is missing, or an empty text or list, or JSON of one."""
    return cell is None or (
        cell.strip() in ("", "[]", "null") if isinstance(cell, str) else is_list(cell) and not len(cell)
    )


def is_list(cell: Any) -> bool:
    """Return whether a cell is a list; those of Parquet are arrays."""
    return isinstance(cell, list | tuple | np.ndarray)


def with_system(messages: list[Message], cell: Any, where: str) -> list[Message]:
    """Return messages after that of a column `system`, if it is not empty.

    Raises:
        UserError: there are two system messages.
    """
    system = text_of(cell, where, "system")
    if not system.strip():
        return messages
    if messages and messages[0]["role"] == "system":
        raise UserError(f"{where}: there is a message of system, and column system is not empty: remove one")
    return [{"role": "system", "content": system}, *messages]


def check(messages: list[Message], where: str, is_prompt: bool = False) -> None:
    """Check the messages of a row.

    Raises:
        UserError: there are none, or one is empty, no text or cannot be encoded, or there is none of the assistant
            although it is no prompt.
    """
    if not messages:
        raise UserError(f"{where}: there are no messages: remove this row")
    for number, message in enumerate(messages, 1):
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise UserError(
                f"{where}, message {number}: the content of {message['role']} is {str(content)[:SHOWN]}, "
                f"a {type(content).__name__}, but must be a text"
            )
        if content and SURROGATE.search(content):
            raise UserError(f"{where}, message {number}: an unpaired surrogate, half of a character: remove it")
        if not (content and content.strip()) and not message.get("tool_calls"):
            raise UserError(f"{where}, message {number}: the content of {message['role']} is empty: remove this row")
    if not is_prompt and messages[-1]["role"] != "assistant":
        raise UserError(
            f"{where}: the last message is of {messages[-1]['role']}, but a completion is one of assistant: add it, or "
            "remove this row"
        )
    if is_prompt and len(messages) == 1 and messages[0]["role"] == "assistant":
        raise UserError(f"{where}: there is a message of assistant, but no prompt")


def from_list(cell: Any, where: str, role: str = "role", content: str = "content") -> list[Message]:
    """Return messages from a list of objects with these keys.

    Raises:
        UserError: it is no such list, or a role is unknown.
    """
    cell = parsed(cell)
    if not isinstance(cell, list) or not all(isinstance(message, Mapping) for message in cell):
        raise UserError(f"{where}: {str(cell)[:SHOWN]!r} is no list of messages with {role} and {content}")
    messages = []
    for number, message in enumerate(cell, 1):
        message, name = to_plain(message, f"{where}, message {number}"), message.get(role)
        known = NAMES.get(name, name) if isinstance(name, str) else None
        if known not in ROLES:
            raise UserError(f"{where}, message {number}: unknown {role} {name!r}: give {', '.join(ROLES)}")
        others = {key: value for key, value in message.items() if key not in (role, content) and value is not None}
        messages.append({"role": known, "content": message.get(content), **others})
    return messages


def parsed(cell: Any) -> Any:
    """Return the list of a cell, which may be an array or JSON; other cells are unchanged."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return list(cell) if isinstance(cell, tuple | np.ndarray) else cell


def to_plain(message: Mapping[str, Any], where: str) -> Message:
    """Return a message as plain JSON values, without the arrays of Parquet.

    Raises:
        UserError: a value is none of JSON, or a text cannot be encoded.
    """
    if all(isinstance(value, str) for value in message.values()):
        return dict(message)
    try:
        text = json.dumps(message, ensure_ascii=False, default=lambda value: value.tolist())
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: {str(message)[:SHOWN]!r} has values that JSON does not have: remove them") from error
    if SURROGATE.search(text):
        raise UserError(f"{where}: an unpaired surrogate, half of a character: remove it")
    return json.loads(text)


def from_messages(cells: Mapping[str, Any], where: str, is_prompt: bool) -> list[Message]:
    """Return the messages of a row in the format of OpenAI."""
    return from_list([] if cells["messages"] is None else cells["messages"], where)


def from_sharegpt(cells: Mapping[str, Any], where: str, is_prompt: bool) -> list[Message]:
    """Return the messages of a row in the format of ShareGPT."""
    found = [] if cells["conversations"] is None else parsed(cells["conversations"])
    uses_role = isinstance(found, list) and any(isinstance(one, Mapping) and "role" in one for one in found)
    return from_list(found, where) if uses_role else from_list(found, where, "from", "value")


def from_alpaca(cells: Mapping[str, Any], where: str, is_prompt: bool) -> list[Message]:
    """Return the messages of a row in the format of Alpaca; `input` is appended to the instruction.

    Raises:
        UserError: the column `history` is not a list of pairs of texts.
    """
    history = [] if is_empty(cells.get("history")) else parsed(cells["history"])
    pairs = [list(pair) if is_list(pair) else pair for pair in history] if isinstance(history, list) else [history]
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair) for pair in pairs
    ):
        raise UserError(f"{where}, column history: {str(history)[:SHOWN]!r} is no list of pairs of question and answer")
    earlier = [
        {"role": role, "content": content} for pair in pairs for role, content in zip(("user", "assistant"), pair)
    ]
    parts = [text_of(cells.get(name), where, name) for name in ("instruction", "input")]
    prompt = [*earlier, {"role": "user", "content": "\n\n".join(part for part in parts if part)}]
    if is_prompt and cells.get("output") is None:
        return prompt
    return [*prompt, {"role": "assistant", "content": text_of(cells.get("output"), where, "output")}]


def from_prompt(cells: Mapping[str, Any], where: str, is_prompt: bool) -> list[Message]:
    """Return the messages of a row with a prompt and a completion, each a text or a list of messages."""
    prompt, completion = cells["prompt"], cells.get("completion")
    messages = (
        [{"role": "user", "content": text_of(prompt, where, "prompt")}]
        if prompt is None or isinstance(prompt, str)
        else from_list(prompt, where)
    )
    if is_prompt and completion is None:
        return messages
    if completion is None or isinstance(completion, str):
        return [*messages, {"role": "assistant", "content": text_of(completion, where, "completion")}]
    return messages + from_list(completion, where)


def text_of(cell: Any, where: str, column: str) -> str:
    """Return the text of a cell, empty if it is missing.

    Raises:
        UserError: it is no text.
    """
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise UserError(f"{where}, column {column}: {str(cell)[:SHOWN]!r} is no text")
    return cell


FORMATS: dict[str, Callable[[Mapping[str, Any], str, bool], list[Message]]] = {  # first column -> reader of a row
    "messages": from_messages,
    "conversations": from_sharegpt,
    "instruction": from_alpaca,
    "prompt": from_prompt,
}


def to_rows(conversations: list[list[Message]]) -> pd.DataFrame:
    """Return a table with the columns `text`, the conversation as plain text, and `messages`, as JSON."""
    return pd.DataFrame(
        {
            "text": ["\n".join(map(plain, messages)) for messages in conversations],
            "messages": [json.dumps(messages, ensure_ascii=False) for messages in conversations],
        },
        dtype=object,
    )


def plain(message: Message) -> str:
    """Return a message as plain text, with its role."""
    return f"{message['role'].capitalize()}:\n{message.get('content') or ''}"
