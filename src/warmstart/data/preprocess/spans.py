"""Questions about long contexts: cut into windows that overlap, with the places of the answers in them."""

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

from warmstart.core.errors import UserError
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import PaddedRows, Ragged, Rows, plain

if TYPE_CHECKING:
    from warmstart.data.preprocess.text import Preprocessor


CHUNK = 500  # questions tokenised at a time
PARTS = ("values", "starts", "offsets", "context", "first", "types")

Answer = tuple[str, int]  # text and start character


@dataclass
class Spans:
    """What is known of a batch of B questions in W windows of T positions.

    Args:
        places: first and last token of the answer (W, 2); the first position where it is not in the window, as in
            BERT for SQuAD 2 (Devlin et al. 2019).
        question: which of the questions a window belongs to (W,), in order.
        context: which positions are part of the context (W, T).
        offsets: the characters that a token stands for, from and up to, in the text that it is part of (W, T, 2).
        texts: the whole contexts (B).
        golds: the right answers of each question (B), none where the context has none or it is not known.
    """

    places: Tensor
    question: Tensor
    context: Tensor
    offsets: Tensor
    texts: list[str]
    golds: list[list[str]]

    def to(self, device: Any, non_blocking: bool = False) -> Spans:
        """The same on a device."""
        tensors = ("places", "question", "context", "offsets")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in tensors})


class Windows(PaddedRows):
    """N questions in M windows, both inputs and targets of a loader; the arrays may be memory maps.

    Args:
        tokens: the tokens of each window, question and special tokens included.
        offsets: their characters (V, 2), as in `Spans`.
        context: first position of the context in each window, and the one after its last (M, 2).
        first: the first window of each question, and the number of all windows (N + 1,).
        places: as in `Spans` (M, 2).
        texts: the contexts (N).
        golds: as in `Spans` (N).
    """

    def __init__(
        self,
        tokens: Ragged,
        offsets: np.ndarray,
        context: np.ndarray,
        first: np.ndarray,
        places: np.ndarray,
        texts: Sequence[str],
        golds: Sequence[list[str]],
    ):
        self.windows, self.offsets, self.context, self.first = tokens, offsets, context, first
        self.places, self.texts, self.golds = places, texts, golds

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Questions, and the most positions of a window."""
        return len(self), self.windows.context

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Positions of the longest window of each question (N,)."""
        return np.maximum.reduceat(self.windows.lengths, self.first[:-1])

    @property
    def tokens(self) -> int:
        """Positions of all windows together."""
        return self.windows.tokens

    def padded(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """All windows of some questions (W, T), and where they are valid, as rows of `Ragged` are."""
        return self.windows.padded(self._of(rows)[0])

    def index_select(self, dim: int, rows: Tensor) -> Spans:
        """The targets of the same windows in the same order."""
        windows, question = self._of(rows)
        lengths = self.windows.lengths[windows]
        columns = np.arange(lengths.max(initial=1))
        index = np.where(columns < lengths[:, None], self.windows.starts[windows][:, None] + columns, 0)
        begin, end = self.context[windows].T[:, :, None]
        return Spans(
            torch.from_numpy(self.places[windows]),
            torch.from_numpy(question),
            torch.from_numpy((columns >= begin) & (columns < end)),
            torch.from_numpy(self.offsets[index].astype(np.int64)),
            [self.texts[row] for row in rows.tolist()],
            [self.golds[row] for row in rows.tolist()],
        )

    def _of(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """The windows of some questions (W,), and which of these questions each belongs to (W,)."""
        rows = plain(rows)
        first, count = self.first[:-1][rows], np.diff(self.first)[rows]
        question = np.repeat(np.arange(len(count)), count)
        return first[question] + np.arange(len(question)) - (count.cumsum() - count)[question], question


def align(preprocessor: Preprocessor, x: pd.DataFrame, y: Sequence[list[Answer]] | None) -> tuple[Windows, Windows]:
    """Windows of questions (column `text`) with contexts (`pair`), and the places of the answers in them.

    Args:
        preprocessor: has the tokenizer; windows have `context` tokens, and share `stride` of those of the context, but
            never more than half of them.
        x: N questions.
        y: the answers to each (N), the one to train on first; None where they are not known.

    Raises:
        UserError: a question leaves no room for its context.
    """
    digests = [cache.texts_digest(x[name]) for name in ("text", "pair")]
    name = cache.key(preprocessor.tokenizer, f"{preprocessor.context} {preprocessor.stride} types", *digests)
    values, starts, offsets, context, first, types = cache.entry(
        "windows", name, lambda folder: _cut(preprocessor, x, folder), lambda folder: cache.arrays(folder, PARTS)
    )
    padding, types = preprocessor.vocabulary.padding, preprocessor.known_types(types)
    tokens = Ragged(values, starts, np.diff(starts), padding, preprocessor.context, types=types)
    answers = [[]] * len(x) if y is None else y
    places = np.zeros((len(context), 2), dtype=np.int64)
    for row, pairs in enumerate(answers):
        for window in range(first[row], first[row + 1]) if len(pairs) else ():
            begin, end = context[window]
            ends = window == first[row], window == first[row + 1] - 1
            found = _locate(offsets[starts[window] + begin : starts[window] + end], pairs, *ends)
            places[window] = 0 if found is None else (begin + found[0], begin + found[1])
    golds = [[text for text, _ in pairs] for pairs in answers]
    both = Windows(tokens, offsets, context, first, places, x["pair"].tolist(), golds)
    return both, both


def _locate(offsets: np.ndarray, answers: Sequence[Answer], is_first: bool, is_last: bool) -> tuple[int, int] | None:
    """The first and last token of the first answer that a window holds whole; None where it holds none.

    Args:
        offsets: of the window's context tokens (K, 2), in order.
        answers: texts with their start characters; spaces around them do not count.
        is_first: no context comes before this window.
        is_last: no context comes after it.
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


def _cut(preprocessor: Preprocessor, x: pd.DataFrame, folder: Path) -> None:
    """Write all windows, in the smallest types that hold them."""
    kind = np.uint16 if preprocessor.vocabulary.size <= 2**16 else np.uint32
    values, offsets, context, counts = [np.zeros(0, kind)], [np.zeros((0, 2), np.int32)], [], []
    types = [np.zeros(0, np.uint8)]
    for start in range(0, len(x), CHUNK):
        for row in _encoded(preprocessor, x.iloc[start : start + CHUNK]):
            windows = [row, *row.overflowing]
            counts.append(len(windows))
            for window in windows:
                values.append(np.array(window.ids, dtype=kind))
                types.append(np.array(window.type_ids, dtype=np.uint8))
                offsets.append(np.array(window.offsets, dtype=np.int32))
                belongs = window.sequence_ids
                begin = belongs.index(1) if 1 in belongs else 0
                context.append((begin, begin + belongs.count(1)))
    np.save(folder / "values.npy", np.concatenate(values))
    np.save(folder / "types.npy", np.concatenate(types))
    np.save(folder / "offsets.npy", np.concatenate(offsets))
    np.save(folder / "starts.npy", np.cumsum([0, *map(len, values[1:])], dtype=np.int64))
    np.save(folder / "context.npy", np.array(context, dtype=np.int32).reshape(-1, 2))
    np.save(folder / "first.npy", np.cumsum([0, *counts], dtype=np.int64))


def _encoded(preprocessor: Preprocessor, x: pd.DataFrame) -> list[Encoding]:
    """The first window of each question, with the others as its `overflowing`."""
    cutter = Tokenizer.from_str(preprocessor.tokenizer)
    cutter.no_padding()
    cutter.no_truncation()
    lengths = [len(found.ids) for found in cutter.encode_batch_fast(x["text"].tolist(), add_special_tokens=False)]
    room = preprocessor.context - cutter.num_special_tokens_to_add(True) - np.array(lengths)
    if room.min() < 1:
        row = int(room.argmin())
        raise UserError(
            f"the question alone takes {lengths[row]} tokens, which leaves no room for its context in windows of "
            f"data.tokenizer.context={preprocessor.context}: raise it, or shorten the question, "
            f"which begins {x['text'].iloc[row][:40]!r}"
        )
    shared = np.minimum(preprocessor.stride, room // 2)
    pairs = list(zip(x["text"], x["pair"]))
    found: dict[int, Encoding] = {}
    for stride in np.unique(shared):
        rows = np.flatnonzero(shared == stride)
        cutter.enable_truncation(preprocessor.context, stride=int(stride), strategy="only_second")
        found |= zip(rows.tolist(), cutter.encode_batch([pairs[row] for row in rows]))
    return [found[row] for row in range(len(pairs))]
