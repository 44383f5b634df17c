"""Test texts that are in the generic texts are detected in any spelling, without false positives."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from warmstart.data.duplicates.comparison import Overlap
from warmstart.data.duplicates.text import find_shared_text

GENERIC = [
    "The quick brown fox, it is said, jumps over the lazy dog every single morning before breakfast.",
    "No movement, no yuks, not much of anything.",
    "黑豹队的防守只丢了 308分。在联赛中排名第六。同时也以 24 次拦截领先国家橄榄球联盟。",
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no movement , no yuks ,  not much of ANYTHING", "exact"),
        ("the quick brown fox it is said jumps over", "near"),
        ("and so the quick brown fox it is said jumps over the lazy dog", "near"),
        ("jumps over the lazy dog every single day , and then it goes home to sleep in peace", None),
        ("over the lazy dog every", "near"),
        ("the lazy dog every", None),
        ("before breakfast no movement no yuks", None),
        ("黑豹队的防守只丢了308分", "near"),
        ("他的队友马里奥·爱迪生贡献了六次擒杀", None),
        ("", None),
        ("!?", None),
    ],
)
def test_copied_text_is_found(text: str, found: str | None):
    numbers = {"exact": Overlap([1], []), "near": Overlap([], [1]), None: Overlap([], [])}
    assert (
        find_shared_text(GENERIC, ["something else altogether that nobody wrote here before", text]) == numbers[found]
    )


def test_all_copies_of_a_row_are_found_and_a_run_does_not_cross_rows():
    assert find_shared_text(["a b c d", "e f g h"], ["c d e f g h a b", "a b c d e f g h"]) == Overlap([], [])
    assert find_shared_text(GENERIC, [GENERIC[0], "x", GENERIC[0]]) == Overlap([0, 2], [])


def test_nothing_is_found_in_nothing():
    assert find_shared_text([], GENERIC) == Overlap([], [])
    assert find_shared_text(GENERIC, []) == Overlap([], [])
    assert find_shared_text(["", "..."], ["", "..."]) == Overlap([], [])


def test_sentences_of_whole_reviews_are_found_and_other_reviewers_are_not():
    folder = os.environ.get("WARMSTART_DATA")
    if not folder:
        pytest.skip("WARMSTART_DATA is not set: there is no local copy of the film reviews")
    reviews = pd.read_parquet(Path(folder) / "movie_reviews" / "train.parquet").text
    test = pd.read_parquet(Path(folder) / "sst2" / "test.parquet").sentence.tolist()
    copied = [line for review in reviews[::40] for line in review.split("\n")[:4] if len(line.split()) > 12]
    found = find_shared_text(reviews, [*test, *copied])
    assert found.exact == []
    assert [row for row in found.near if row >= len(test)] == list(range(len(test), len(test) + len(copied)))
    assert len(found.near) - len(copied) == 2
