"""Scores of generated texts."""

from __future__ import annotations

import random

import pytest

from warmstart.objective.text_metrics import longest_common_subsequence, rouge_l

WORDS = ["The", "cat", "sat", "on", "a-mat", "e.g.", "3.5", "Übung", "don't", "snake_case", "", "\n", "the", "CAT"]


def test_rouge_l_equals_that_of_the_package():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    draw = random.Random(0)
    for _ in range(200):
        one, other = (" ".join(draw.choices(WORDS, k=draw.randrange(30))) for _ in range(2))
        assert rouge_l(one, other) == pytest.approx(scorer.score(other, one)["rougeL"].fmeasure, abs=1e-12)


def test_rouge_l_of_known_texts():
    assert rouge_l("the cat sat", "The cat  sat!") == 1
    assert rouge_l("cat the", "the cat") == pytest.approx(0.5)
    assert rouge_l("", "the cat") == rouge_l("???", "???") == 0
    assert longest_common_subsequence("abcbdab", "bdcaba") == 4
