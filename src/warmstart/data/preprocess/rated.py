"""Encode rated conversations, each with a second one: its prompt with the completion of another prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.readers.chats import to_rows
from warmstart.data.storage.ragged import Pairs, Ragged

if TYPE_CHECKING:
    from warmstart.data.preprocess.chat import Preprocessor


def align(preprocessor: Preprocessor, x: pd.DataFrame) -> tuple[Any, Any]:
    """Return token ids and labels of the rated conversations and of mismatched ones, as `Pairs` with ratings.

    A mismatched conversation is the prompt of a row with the completion of the next row with another prompt; after the
    last row comes the first. Without a column `label`, as in a prediction, only the conversations are returned.

    Args:
        x: a table with the columns of data.readers.ratings.rated_to_rows.

    Raises:
        UserError: all rows have the same rating or the same prompt, all are rated both ways, they are pairs without
            ratings, or as in `Preprocessor.align`.
    """
    if "rejected" in x:
        raise UserError("this model predicts one completion per row: give completion instead of chosen and rejected")
    if "label" not in x:
        return preprocessor.align(with_last(x), None, "completion")
    ratings = np.array(x["label"], dtype=bool)
    if len(x) and (ratings.all() or not ratings.any()):
        raise UserError(
            f"all {len(x):,} rated completions of a split are {'' if ratings[0] else 'un'}desirable (label "
            f"{'true' if ratings[0] else 'false'}), but two kinds are needed: add rows, or set another data.split_seed"
        )
    tokens, labels = preprocessor.align(x, None, "completion")
    check_contradictions(tokens, ratings)
    others = mismatched(x)
    both = joined(tokens, preprocessor.untruncated(others))
    return Pairs(both, torch.from_numpy(ratings)), Pairs(joined(labels, preprocessor.labels(others)))


def with_last(x: pd.DataFrame) -> pd.DataFrame:
    """Return conversations with the last message as the completion, in the column `first`."""
    return x.assign(first=[len(json.loads(messages)) - 1 for messages in x["messages"]])


def check_contradictions(tokens: Ragged, ratings: np.ndarray) -> None:
    """Print a warning about equal conversations that are rated both as desirable and as undesirable.

    Raises:
        UserError: all conversations are.
    """
    ends = tokens.starts[:-1] + tokens.lengths
    rows = [tokens.values[start:end].tobytes() for start, end in zip(tokens.starts[:-1], ends)]
    kinds = [{row for row, own in zip(rows, ratings) if own == kind} for kind in (True, False)]
    count = sum(row in kinds[0] and row in kinds[1] for row in rows)
    if count == len(rows):
        raise UserError(
            f"all {count:,} conversations, as truncated to data.tokenizer.context={tokens.context} tokens, are rated "
            "both as desirable and as undesirable: remove one of each, or raise data.tokenizer.context"
        )
    if count:
        screen.say(f"warning: {count:,} of {len(rows):,} conversations are rated both true and false", style="yellow")


def mismatched(x: pd.DataFrame) -> pd.DataFrame:
    """Return the prompt of each row with the completion of the next row with another prompt.

    Raises:
        UserError: all rows have the same prompt.
    """
    rows = [json.loads(messages) for messages in x["messages"]]
    prompts, completions = zip(*((row[:first], row[first:]) for row, first in zip(rows, x["first"])))
    names = [json.dumps(prompt) for prompt in prompts]
    if len(set(names)) == 1:
        raise UserError(
            f"all {len(rows):,} rated completions of a split have the same prompt, but the reference point of KTO "
            "needs completions of others: add rows"
        )
    found = [prompt + completions[other] for prompt, other in zip(prompts, next_other(names))]
    return to_rows(found).assign(first=x["first"].tolist())


def next_other(names: Sequence[str]) -> list[int]:
    """Return the index of the next item that differs from each item; after the last one comes the first."""
    count = len(names)
    found = list(range(count))
    for index in reversed(range(2 * count)):  # twice, as the last ones depend on the first
        row, after = index % count, (index + 1) % count
        found[row] = after if names[row] != names[after] else found[after]
    return found


def joined(first: Ragged, second: Ragged) -> Ragged:
    """Return the rows of both."""
    starts = np.concatenate([first.starts, first.starts[-1] + second.starts[1:]])
    values = np.concatenate([first.values, second.values])
    return Ragged(values, starts, np.diff(starts), first.padding, first.context)
