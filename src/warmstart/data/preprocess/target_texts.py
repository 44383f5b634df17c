"""Tokenize the target texts of sequence-to-sequence models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.storage.ragged import Ragged

if TYPE_CHECKING:
    from warmstart.data.preprocess.text import Preprocessor


NONE = -100  # label of padding, as in transformers


def encode(preprocessor: Preprocessor, y: Sequence[str]) -> Ragged:
    """Return the token ids of target texts, with the special tokens of the tokenizer; padding is -100.

    Longer texts are truncated to the context, with a message.

    Raises:
        UserError: a text is longer than the context, and `too_long` is error.
    """
    found = preprocessor.backend_tokenizer.encode_batch_fast(list(y))
    end, suffix = preprocessor.vocabulary.end, preprocessor.suffix
    added = () if end is None or end in suffix else (end,)  # the tokenizer of a decoder adds none
    rows = [np.array([*row.ids, *added], dtype=np.int32) for row in found]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    longer, context = np.flatnonzero(lengths > preprocessor.context), preprocessor.context
    if len(longer):
        what = f"{len(longer):,} of {len(rows):,} target texts"
        if preprocessor.too_long == "error":
            raise UserError(
                f"{what} are longer than data.tokenizer.context={context} tokens (up to {lengths.max():,}), the first "
                f"starts with {y[longer[0]][:40]!r}: raise it, or set data.tokenizer.too_long=truncate"
            )
        screen.say(
            f"warning: {what} are truncated to data.tokenizer.context={context} tokens (of up to {lengths.max():,})",
            style="yellow",
        )
    values = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    return Ragged(values, starts, lengths, NONE, context, (*suffix, *added))
