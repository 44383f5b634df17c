"""Word and character error rates against jiwer."""

from __future__ import annotations

import random

import pytest

from warmstart.objective.text_normalizers import normalizer_of
from warmstart.objective.text_scores import TextScores

WORDS = ["one", "two", "three", "tea", "tee", "thirty", "won't", "Mr.", "colour"]


def test_rates_are_those_of_jiwer():
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed")
    draw = random.Random(0)
    for _ in range(200):
        targets = [" ".join(draw.choices(WORDS, k=draw.randint(1, 8))) for _ in range(draw.randint(1, 5))]
        found = [" ".join(draw.choices([*target.split(), *WORDS], k=draw.randint(0, 9))) for target in targets]
        scores = TextScores(lambda y: y, lambda y: y)
        scores.update(found, targets)
        rates = scores.compute()
        assert rates["wer"] == pytest.approx(jiwer.wer(targets, found), abs=1e-12)
        assert rates["cer"] == pytest.approx(jiwer.cer(targets, found), abs=1e-12)


@pytest.mark.parametrize(("name", "wrong"), [("none", 5), ("basic", 2), ("english", 0)])
def test_texts_are_normalized_before(name: str, wrong: int):
    found, target = "Hello, I will not (laughs) go.", "hello I won't go"
    scores = TextScores(lambda y: [found], lambda y: [target], normalizer_of(name))
    scores.update(None, None)
    assert scores.compared == [(wrong, target, found)]
    words = len(normalizer_of(name)(target).split())
    assert scores.compute()["wer"] == pytest.approx(wrong / words)
