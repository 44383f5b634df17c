"""Messages about rows that two splits share."""

from __future__ import annotations

import pytest

from warmstart.report.shared_rows import sentence

FIRST = {"row": 7, "equals": 1203, "shown": "a=1, b=2", "as": "a=1, b=2"}


@pytest.mark.parametrize(
    ("pair", "shared", "text"),
    [
        (
            "train/test",
            {"rows": 1500, "exact": 12, "near": 3, "other_target": 2, "first": FIRST},
            "12 of 1,500 test rows are also among the training rows (2 with another target) and 3 are near duplicates; "
            "the first is test row 7, training row 1,203 (a=1, b=2): scores on them are optimistic, remove the "
            "duplicates",
        ),
        (
            "train/validation",
            {"rows": 150, "exact": 0, "near": 1, "other_target": 0, "first": {"row": 7, "shown": ""}},
            "1 of 150 validation rows is a near duplicate of training rows; the first is validation row 7: "
            "scores on them may be optimistic, remove the duplicates",
        ),
        (
            "validation/test",
            {"rows": 9, "exact": 1, "near": None, "first": {"row": 1, "equals": 2, "shown": "b.wav", "as": "a.wav"}},
            "1 of 9 test rows is also among the validation rows; the first is test row 1 (b.wav), validation row 2 "
            "(a.wav): the weights are selected on test rows, remove the duplicates",
        ),
        (
            "train/test_other",
            {"rows": 9, "exact": 0, "near": 0, "same_context": 4, "first": {"row": 3, "shown": "Who?"}},
            "4 of 9 test_other rows share only their context with training rows; the first is test_other row 3 (Who?): "
            "scores on them may be optimistic, put each context into one split",
        ),
    ],
)
def test_a_sentence_has_the_numbers_the_first_row_and_what_to_do(pair: str, shared: dict, text: str):
    assert sentence(pair, shared) == text
