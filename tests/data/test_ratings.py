"""Rated conversations: formats, mismatched completions and refusals."""

import pandas as pd
import pytest
from tests.data.test_chat import preprocessor, tokenizer  # noqa: F401  a fixture
from tests.data.test_preferences import BAD, CHOSEN, FORMATS, GOOD, QUESTION, REJECTED, USER

from warmstart.core.errors import UserError
from warmstart.data.preprocess.chat import NONE
from warmstart.data.preprocess.rated import next_other
from warmstart.data.readers.ratings import rated_to_rows, to_rated, to_rated_table

RATED = {
    "text": {"prompt": QUESTION, "completion": GOOD, "label": True},
    "messages": {"messages": [USER, CHOSEN], "label": 1},
    "cells of a text file": {"prompt": QUESTION, "completion": GOOD, "label": "True"},
}


def read(*rows: dict) -> list[tuple]:
    return to_rated(to_rated_table(pd.DataFrame(rows, dtype=object), "x"), "x")


@pytest.mark.parametrize("name", RATED)
def test_all_formats_give_the_same_ratings(name):
    assert read(RATED[name]) == [([USER, CHOSEN], True, 1)]


@pytest.mark.parametrize("name", FORMATS)
def test_a_pair_is_a_desirable_and_an_undesirable_row(name):
    assert read(FORMATS[name]) == [([USER, CHOSEN], True, 1), ([USER, REJECTED], False, 1)]


WRONG = {
    "no rating": ({"prompt": "a", "completion": "b"}, r"x has no ratings: it needs .* label .* has prompt, completion"),
    "no label": ({**RATED["text"], "label": None}, "row 0, column label: 'None' is neither true .desirable. nor false"),
    "score": ({**RATED["text"], "label": 0.7}, "row 0, column label: '0.7' is neither true"),
    "no completion": ({"messages": [USER, CHOSEN, USER], "label": True}, "row 0: the last message is of user"),
    "no prompt": ({"messages": [CHOSEN], "label": True}, "row 0: the completion has no prompt"),
    "equal": ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are equal in 1 of 1 rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_malformed_ratings_are_refused(name):
    row, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        read(row)


def rows(*triples: tuple[str, str, bool]) -> pd.DataFrame:
    return rated_to_rows(read(*({"prompt": a, "completion": b, "label": c} for a, b, c in triples)))


def test_rows_have_the_completion_of_another_prompt(tokenizer):  # noqa: F811
    processor = preprocessor(tokenizer)
    x, y = processor.align(
        rows((QUESTION, GOOD, True), (QUESTION, BAD, False), ("Why?", "Because.", True)), None, "rated"
    )
    assert x.ratings.tolist() == [True, False, True]
    tokens, labels = x.padded(slice(None))[0], y.padded(slice(None))[0]
    found = [processor.backend_tokenizer.decode(row[own != NONE].tolist()) for row, own in zip(tokens, labels)]
    assert [text.strip() for text in found] == [GOOD, BAD, "Because.", "Because.", "Because.", GOOD]
    whole = [processor.backend_tokenizer.decode(row.tolist()) for row in tokens]
    assert QUESTION in whole[4]
    assert "Why?" in whole[5]


def test_next_other_is_cyclic():
    assert next_other(["a", "a", "b", "a"]) == [2, 2, 3, 2]


REFUSED = {
    "one rating": (((QUESTION, GOOD, True), ("Why?", BAD, True)), "all 2 rated completions of a split are desirable"),
    "other rating": (((QUESTION, GOOD, False),), "all 1 rated completions of a split are undesirable .label false."),
    "one prompt": (((QUESTION, GOOD, True), (QUESTION, BAD, False)), "all 2 rated .* have the same prompt"),
    "contradictions": (((QUESTION, GOOD, True), (QUESTION, GOOD, False)), "all 2 conversations, .*, are rated both"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_ratings_that_teach_nothing_are_refused(tokenizer, name):  # noqa: F811
    triples, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        preprocessor(tokenizer).align(rows(*triples), None, "rated")


def test_some_contradictions_are_a_warning(tokenizer, capsys):  # noqa: F811
    triples = (QUESTION, GOOD, True), (QUESTION, GOOD, False), ("Why?", BAD, True)
    preprocessor(tokenizer).align(rows(*triples), None, "rated")
    assert "warning: 2 of 3 conversations are rated both true and false" in capsys.readouterr().err
