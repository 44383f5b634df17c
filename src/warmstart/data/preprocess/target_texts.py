"""Tokenize the target texts of sequence-to-sequence models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from warmstart.core import screen
from warmstart.core.batch import Part
from warmstart.core.errors import UserError
from warmstart.data.storage.ragged import PaddedRows, Ragged, Rows, numbers

if TYPE_CHECKING:
    from warmstart.data.preprocess.text import Preprocessor


NONE = -100  # label of padding, as in transformers


@dataclass
class Answers:
    """Targets of a batch of B rows: the token ids of the first answer (B, L), and the texts of all answers."""

    ids: Tensor
    texts: list[list[str]]

    def to(self, device: Any, non_blocking: bool = False) -> Answers:
        """The same on a device."""
        return replace(self, ids=self.ids.to(device, non_blocking=non_blocking))

    def rows(self, part: Part) -> Answers:
        """Return the rows of a part."""
        return Answers(part.of(self.ids), self.texts[part.start : part.stop])


class AnswerRows(PaddedRows):
    """Target texts with further correct answers, which are for metrics only.

    Args:
        rows: token ids of the first answers (N).
        texts: all answers of each row (N).
    """

    def __init__(self, rows: Ragged, texts: Sequence[list[str]]):
        self.rows, self.texts = rows, list(texts)
        self.lengths, self.tokens = rows.lengths, rows.tokens

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and maximum length of a row."""
        return self.rows.shape

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return padded token ids (B, L) and their mask, as `Ragged.padded` does."""
        return self.rows.padded(rows)

    def index_select(self, dim: int, rows: Tensor) -> Answers:
        """Return the targets of these rows."""
        return self[rows]

    def __getitem__(self, rows: Rows) -> Answers:
        index = numbers(rows, len(self))
        return Answers(self.rows[index], [self.texts[row] for row in index])


def ids_of(y: Any) -> Tensor:
    """Return the token ids (B, L) of targets: of a batch, or of all rows."""
    y = y[:] if isinstance(y, PaddedRows) else y
    return y.ids if isinstance(y, Answers) else y


def encode(preprocessor: Preprocessor, y: Sequence[str] | Sequence[list[str]]) -> Ragged | AnswerRows:
    """Return the token ids of target texts; of lists of correct answers, those of the first, and all answers."""
    if len(y) == 0 or isinstance(y[0], str):
        return tokenized(preprocessor, y)
    return AnswerRows(tokenized(preprocessor, [answers[0] for answers in y]), y)


def tokenized(preprocessor: Preprocessor, y: Sequence[str]) -> Ragged:
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
