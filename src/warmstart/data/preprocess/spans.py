"""Tokenize questions with long contexts into overlapping windows, with the positions of the answers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from warmstart.core.batch import Batch, Part
from warmstart.core.errors import UserError
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import PaddedRows, Ragged, Rows, numbers

if TYPE_CHECKING:
    from warmstart.data.preprocess.text import Preprocessor


CHUNK = 500  # questions tokenized at a time
PARTS = ("values", "starts", "offsets", "context", "first", "types")

Answer = tuple[str, int]  # text and start character


@dataclass
class Spans:
    """Targets of a batch of B questions in W windows of T positions.

    Args:
        positions: first and last token of the answer (W, 2); position 0 if it is not in the window, as in BERT for
            SQuAD 2 (Devlin et al. 2019).
        question: index of the question of each window (W,), sorted.
        context: which positions are part of the context (W, T).
        offsets: start and end character of each token in its text (W, T, 2).
        texts: untruncated contexts (B).
        golds: correct answers of each question (B); empty if there is none or it is unknown.
    """

    positions: Tensor
    question: Tensor
    context: Tensor
    offsets: Tensor
    texts: list[str]
    golds: list[list[str]]

    def to(self, device: Any, non_blocking: bool = False) -> Spans:
        """The same on a device."""
        tensors = ("positions", "question", "context", "offsets")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in tensors})

    def rows(self, part: Part, windows: Part) -> Spans:
        """Return the questions of a part, whose windows are `windows`."""
        own = {name: windows.of(getattr(self, name)) for name in ("positions", "question", "context", "offsets")}
        own["question"] = own["question"] - part.start
        texts, golds = self.texts[part.start : part.stop], self.golds[part.start : part.stop]
        return replace(self, **own, texts=texts, golds=golds)


class Windows(PaddedRows):
    """N questions in M windows, both inputs and targets of a loader; the arrays may be memory maps.

    Args:
        tokens: tokens of each window, including the question and special tokens.
        offsets: characters of the tokens (V, 2), as in `Spans`.
        context: start and end position of the context in each window (M, 2).
        first: index of the first window of each question, and M (N + 1,).
        positions: as in `Spans` (M, 2).
        texts: contexts (N).
        golds: as in `Spans` (N).
    """

    def __init__(
        self,
        tokens: Ragged,
        offsets: np.ndarray,
        context: np.ndarray,
        first: np.ndarray,
        positions: np.ndarray,
        texts: Sequence[str],
        golds: Sequence[list[str]],
    ):
        self.windows, self.offsets, self.context, self.first = tokens, offsets, context, first
        self.positions, self.texts, self.golds = positions, texts, golds

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of questions, and maximum length of a window."""
        return len(self), self.windows.context

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Length of the longest window of each question (N,)."""
        return np.maximum.reduceat(self.windows.lengths, self.first[:-1])

    @property
    def tokens(self) -> int:
        """Total length of all windows."""
        return self.windows.tokens

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return all windows of these questions (W, T) and their mask, as `Ragged.padded` does."""
        return self.windows.padded(self._windows_of(rows)[0])

    def part(self, batch: Batch, rows: Tensor, part: Part) -> Batch:
        """Return the questions of a part of a batch; the part of the result counts windows instead."""
        ends = np.concatenate([[0], self._first_and_count(rows)[1].cumsum()]).tolist()
        windows = Part(ends[part.start], ends[part.stop], ends[-1], part.padding)
        x, mask = windows.of(batch.x), None if batch.mask is None else windows.of(batch.mask)
        return Batch(x, None if batch.y is None else batch.y.rows(part, windows), mask, part=windows)

    def index_select(self, dim: int, rows: Tensor) -> Spans:
        """Return the targets of the windows of these questions."""
        windows, question = self._windows_of(rows)
        lengths = self.windows.lengths[windows]
        columns = np.arange(lengths.max(initial=1))
        index = np.where(columns < lengths[:, None], self.windows.starts[windows][:, None] + columns, 0)
        begin, end = self.context[windows].T[:, :, None]
        return Spans(
            torch.from_numpy(self.positions[windows]),
            torch.from_numpy(question),
            torch.from_numpy((columns >= begin) & (columns < end)),
            torch.from_numpy(self.offsets[index].astype(np.int64)),
            [self.texts[row] for row in rows.tolist()],
            [self.golds[row] for row in rows.tolist()],
        )

    def _first_and_count(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return the first window of each of these questions (B,), and their number of windows (B,)."""
        rows = numbers(rows, len(self))
        first = self.first[rows]
        return first, self.first[rows + 1] - first

    def _windows_of(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of these questions (W,), and the index of the question of each (W,)."""
        first, count = self._first_and_count(rows)
        question = np.repeat(np.arange(len(count)), count)
        return first[question] + np.arange(len(question)) - (count.cumsum() - count)[question], question


def align(preprocessor: Preprocessor, x: pd.DataFrame, y: Sequence[list[Answer]] | None) -> tuple[Windows, Windows]:
    """Return windows of questions (column `text`) and contexts (`pair`), and the positions of the answers in them.

    Args:
        preprocessor: has the tokenizer; windows have at most `context` tokens and overlap by `stride` context tokens,
            or half of the context tokens if that is less.
        x: N questions.
        y: answers to each question (N), of which the first is the training target; None if unknown.

    Raises:
        UserError: a question is too long to fit its context into a window.
    """
    digests = [cache.texts_digest(x[name]) for name in ("text", "pair")]
    name = cache.key(preprocessor.tokenizer, f"{preprocessor.context} {preprocessor.stride} types", *digests)
    values, starts, offsets, context, first, types = cache.entry(
        "windows",
        name,
        lambda folder: _write_windows(preprocessor, x, folder),
        lambda folder: cache.arrays(folder, PARTS),
    )
    padding, types = preprocessor.vocabulary.padding, preprocessor.model_types(types)
    tokens = Ragged(values, starts, np.diff(starts), padding, preprocessor.context, types=types)
    answers = [[]] * len(x) if y is None else y
    positions = np.zeros((len(context), 2), dtype=np.int64)
    for row, pairs in enumerate(answers):
        for window in range(first[row], first[row + 1]) if len(pairs) else ():
            begin, end = context[window]
            ends = window == first[row], window == first[row + 1] - 1
            found = _locate(offsets[starts[window] + begin : starts[window] + end], pairs, *ends)
            positions[window] = 0 if found is None else (begin + found[0], begin + found[1])
    golds = [[text for text, _ in pairs] for pairs in answers]
    both = Windows(tokens, offsets, context, first, positions, x["pair"].tolist(), golds)
    return both, both


def _locate(offsets: np.ndarray, answers: Sequence[Answer], is_first: bool, is_last: bool) -> tuple[int, int] | None:
    """Return the first and last token of the first answer that is completely in a window, or None.

    Args:
        offsets: offsets of the context tokens of the window (K, 2), in order.
        answers: texts with their start characters; surrounding spaces are ignored.
        is_first: whether this is the first window of the context.
        is_last: whether this is the last window of the context.
    """
    for text, start in answers:
        start += len(text) - len(text.lstrip())
        stop = start + len(text.strip())
        first = int(np.searchsorted(offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(offsets[:, 0], stop, side="left")) - 1
        if first > last:
            continue
        starts_before = first == 0 and offsets[0, 0] > start and not is_first
        ends_after = last == len(offsets) - 1 and offsets[-1, 1] < stop and not is_last
        if not starts_before and not ends_after:
            return first, last
    return None


def _write_windows(preprocessor: Preprocessor, x: pd.DataFrame, folder: Path) -> None:
    """Tokenize the questions and write all windows, with the smallest integer dtype."""
    dtype = np.uint16 if preprocessor.vocabulary.size <= 2**16 else np.uint32
    values, offsets, context, counts = [np.zeros(0, dtype)], [np.zeros((0, 2), np.int32)], [], []
    types = [np.zeros(0, np.uint8)]
    for start in range(0, len(x), CHUNK):
        for row in _tokenize(preprocessor, x.iloc[start : start + CHUNK]):
            windows = [row, *row.overflowing]
            counts.append(len(windows))
            for window in windows:
                values.append(np.array(window.ids, dtype=dtype))
                types.append(np.array(window.type_ids, dtype=np.uint8))
                offsets.append(np.array(window.offsets, dtype=np.int32))
                sequence = window.sequence_ids
                begin = sequence.index(1) if 1 in sequence else 0
                context.append((begin, begin + sequence.count(1)))
    np.save(folder / "values.npy", np.concatenate(values))
    np.save(folder / "types.npy", np.concatenate(types))
    np.save(folder / "offsets.npy", np.concatenate(offsets))
    np.save(folder / "starts.npy", np.cumsum([0, *map(len, values[1:])], dtype=np.int64))
    np.save(folder / "context.npy", np.array(context, dtype=np.int32).reshape(-1, 2))
    np.save(folder / "first.npy", np.cumsum([0, *counts], dtype=np.int64))


def _tokenize(preprocessor: Preprocessor, x: pd.DataFrame) -> list[Encoding]:
    """Return the first window of each question, with the other windows in its `overflowing`."""
    tokenizer = Tokenizer.from_str(preprocessor.tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = [len(found.ids) for found in tokenizer.encode_batch_fast(x["text"].tolist(), add_special_tokens=False)]
    room = preprocessor.context - tokenizer.num_special_tokens_to_add(True) - np.array(lengths)
    if room.min() < 1:
        row = int(room.argmin())
        raise UserError(
            f"a question has {lengths[row]} tokens, so its context does not fit into windows of "
            f"data.tokenizer.context={preprocessor.context}: raise it, or shorten the question, "
            f"which starts with {x['text'].iloc[row][:40]!r}"
        )
    shared = np.minimum(preprocessor.stride, room // 2)
    pairs = list(zip(x["text"], x["pair"]))
    found: dict[int, Encoding] = {}
    for stride in np.unique(shared):
        rows = np.flatnonzero(shared == stride)
        tokenizer.enable_truncation(preprocessor.context, stride=int(stride), strategy="only_second")
        found |= zip(rows.tolist(), tokenizer.encode_batch([pairs[row] for row in rows]))
    return [found[row] for row in range(len(pairs))]
