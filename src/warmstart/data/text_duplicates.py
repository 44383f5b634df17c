"""Leakage between texts: test rows that the generic training texts hold too, exactly or in large part."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from warmstart.data.duplicates import Overlap

RUN = 8  # words in a row that mark copied text
SHORTEST = 5  # words of a row that can be found as a whole; fewer are in any large text
SHARE = 0.5
CHUNK = 2**21  # characters of generic text looked at at once
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")  # a Chinese character is a word
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def find_shared_text(generic: Iterable[str], test: Iterable[str]) -> Overlap:
    """The test rows whose text is also among the generic rows.

    Exact rows have the same words, whatever their case, white space and punctuation. Near ones have at least half of
    their runs of 8 words anywhere in the generic rows; a row of 5 to 7 words is near where a generic row has all of
    them in order, and a shorter one never is. Runs are compared by 64-bit hashes.

    Measured: of SST-2's 1,821 test sentences none is exact and 2 are near in 2,000 film reviews (7.8 million
    characters, 0.8 s on one core), both of them commonplace: "one of the best of the year", "go see it and enjoy". Of
    1,000 sentences drawn from these reviews it finds the 949 that have 5 words or more; of the same with their middle
    word left out 444, since a short sentence then keeps few of its runs. So it finds copied text, not a paraphrase.

    Args:
        generic: rows to train on.
        test: rows of the task's test split.
    """
    rows = [words(text) for text in test]
    unseen = {" ".join(row) for row in rows} - {""}
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    sizes = np.where(lengths < SHORTEST, 0, np.minimum(lengths, RUN))
    hashes, owner = hashed(rows)
    runs = {size: run_hashes(hashes, np.where(sizes[owner] == size, owner, -1), size) for size in set(sizes) - {0}}
    known = {size: np.unique(run) for size, (run, _) in runs.items()}
    found = {size: np.zeros(len(values), dtype=bool) for size, values in known.items()}
    same: set[str] = set()
    for chunk in chunks(generic):
        same.update(unseen.intersection(" ".join(row) for row in chunk))
        hashes, owner = hashed(chunk)
        for size, values in known.items():
            run, _ = run_hashes(hashes, owner, size)
            place = np.searchsorted(values, run).clip(max=len(values) - 1)
            found[size][place[values[place] == run]] = True
    exact = [number for number, row in enumerate(rows) if " ".join(row) in same]
    near: set[int] = set()
    for size, (run, owner) in runs.items():
        held = found[size][np.searchsorted(known[size], run)]
        share = np.bincount(owner, held, len(rows)) / np.bincount(owner, minlength=len(rows)).clip(min=1)
        near.update(np.flatnonzero(share >= SHARE).tolist())
    return Overlap(exact, sorted(near - set(exact)))


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return WORD.findall(text.casefold())


def chunks(texts: Iterable[str]) -> Iterator[list[list[str]]]:
    """The words of each text, some texts at a time."""
    chunk, size = [], 0
    for text in texts:
        chunk.append(words(text))
        size += len(text)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def hashed(rows: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """64 bits for each word of all rows (W,), the same within this process, and the number of its row (W,)."""
    lengths = [len(row) for row in rows]
    values = np.fromiter((hash(word) for row in rows for word in row), dtype=np.int64, count=sum(lengths))
    return values.view(np.uint64), np.repeat(np.arange(len(rows)), lengths)


def run_hashes(hashes: np.ndarray, owner: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """64 bits for each run of `size` words within a row, and the row's number; rows numbered below 0 are left out."""
    count = max(0, len(hashes) - size + 1)
    values = np.zeros(count, dtype=np.uint64)
    for step in range(size):
        values = values * FACTOR + hashes[step : step + count]
    first, last = owner[:count], owner[size - 1 :]
    inside = (first == last) & (first >= 0)
    return values[inside], first[inside]
