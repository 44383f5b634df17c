"""Extractive question answering: windows cover the context, and spans are exact to the character."""

# ruff: noqa: RUF001 (Chinese texts)

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from warmstart.core.errors import UserError
from warmstart.data.loader import GatherLoader, take
from warmstart.data.preprocess.spans import Spans, Windows
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.preprocess.tokenizing import MODELS

pytestmark = pytest.mark.quick

ENGLISH = (
    "The river Exe rises near Simonsbath, on Exmoor. It flows for 96 kilometres, mostly due south, "
    "to the English Channel.  Its name comes from a Celtic word for 'water' \U0001f30a and so does Exeter's; "
    "a café stands where Zoë Łukasz counted “seven” boats in 1844."
)
CHINESE = "黑豹队的防守只丢了 308分，在联赛中排名第六，同时也以 24 次拦截领先国家橄榄球联盟 (NFL)，并且四次入选职业碗。"
QUESTIONS = [
    ("How long is it?", ENGLISH, ["96 kilometres"]),
    ("Where does it rise?", ENGLISH, ["near Simonsbath, on Exmoor"]),
    ("Who counted?", ENGLISH, ["Zoë Łukasz"]),
    ("What does the name mean?", ENGLISH, ["'water' \U0001f30a"]),
    ("How many boats?", ENGLISH, ["“seven” boats"]),
    ("排名第几？", CHINESE, ["第六"]),
    ("丢了多少分？", CHINESE, ["308分"]),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame({"text": [row[0] for row in rows], "pair": [row[1] for row in rows]})


def targets(rows: list[tuple]) -> np.ndarray:
    y = np.empty(len(rows), dtype=object)
    y[:] = [[(answer, context.index(answer)) for answer in answers] for _, context, answers in rows]
    return y


def fitted(model: str, context: int, stride: int, rows: list[tuple] = QUESTIONS) -> Preprocessor:
    preprocessor = Preprocessor(model, 400, context, stride)
    preprocessor.fit(frame(rows))
    return preprocessor


def windows(context: int = 40, stride: int = 12, model: str = "wordpiece", rows: list[tuple] = QUESTIONS) -> Windows:
    x, y = fitted(model, context, stride, rows).align(frame(rows), targets(rows), "span")
    assert len(x) == len(y) == len(rows)
    return x


def spans(found: Windows) -> Spans:
    return found.index_select(0, torch.arange(len(found)))


def marked(y: Spans) -> list[set[str]]:
    """The text that each question's windows mark as its answer."""
    texts = [set() for _ in y.texts]
    for window, (first, last) in enumerate(y.positions.tolist()):
        if first:
            row = int(y.question[window])
            texts[row].add(y.texts[row][y.offsets[window, first, 0] : y.offsets[window, last, 1]].strip())
    return texts


@pytest.mark.parametrize("model", sorted(MODELS))
def test_answers_are_found_to_the_character(model: str):
    rows = QUESTIONS if model in ("wordpiece", "characters") else QUESTIONS[:5]  # others cut Chinese where they like
    found = windows(100, 30, model, rows)
    assert marked(spans(found)) == [set(answers) for *_, answers in rows]


def test_windows_share_tokens_and_hold_the_whole_context_in_order():
    found = windows()
    y, (x, mask) = spans(found), found.padded(slice(0, len(found)))
    assert found.shape == (len(QUESTIONS), 40)
    assert x.shape == y.context.shape == y.offsets.shape[:2] == (len(y.question), 40)
    assert not (y.context & ~mask).any()
    assert found.lengths.tolist() == [40] * len(found)
    assert found.tokens == mask.sum()
    for row, context in enumerate(y.texts):
        own = [offsets[inside].tolist() for offsets, inside in zip(y.offsets, y.context)]
        own = [own[window] for window in torch.where(y.question == row)[0].tolist()]
        assert len(own) > 1
        for before, after in pairwise(own):
            assert before[-12:] == after[:12]
        seen = {c for pieces in own for a, b in pieces for c in range(a, b)}
        assert {c for c, letter in enumerate(context) if not letter.isspace()} <= seen


def test_an_answer_on_the_edge_of_a_window_is_whole_in_the_next_one_if_they_overlap():
    words = [f"w{number}" for number in range(40)]
    context = " ".join(words)
    rows = [("which?", context, [" ".join(words[start : start + 4])]) for start in range(37)]
    preprocessor = fitted("wordpiece", 20, 8, rows)
    complete, _ = preprocessor.align(frame(rows), targets(rows), "span")
    assert marked(spans(complete)) == [set(answers) for *_, answers in rows]
    apart, _ = Preprocessor("wordpiece", context=20, stride=0, tokenizer=preprocessor.tokenizer).align(
        frame(rows), targets(rows), "span"
    )
    assert sum(not texts for texts in marked(spans(apart))) > 5


def test_a_window_without_the_answer_points_at_the_first_token_and_so_does_a_question_without_any():
    found = windows(rows=[*QUESTIONS[:1], ("Why?", ENGLISH, [])])
    y = spans(found)
    first, second = (y.positions[y.question == row] for row in (0, 1))
    assert (first[:, 0] > 0).sum() in (1, 2)
    assert (first == 0).all(1).sum() == len(first) - (first[:, 0] > 0).sum()
    assert (second == 0).all()
    assert y.golds == [["96 kilometres"], []]


def test_of_several_answers_the_first_that_a_window_holds_is_marked():
    rows = [("Which?", ENGLISH, ["1844", "Exmoor", "Simonsbath"])]
    y = spans(windows(rows=rows))
    assert marked(y) == [{"1844", "Exmoor"}]
    assert y.golds == [["1844", "Exmoor", "Simonsbath"]]


def test_answers_beyond_the_context_or_of_spaces_are_nowhere():
    y = np.empty(2, dtype=object)
    y[:] = [[("lost", 5000)], [("  ", ENGLISH.index("  "))]]
    rows = [("How?", ENGLISH, []), ("Why?", ENGLISH, [])]
    found, _ = fitted("wordpiece", 40, 12).align(frame(rows), y, "span")
    assert (spans(found).positions == 0).all()


def test_batches_keep_windows_and_targets_together_and_can_be_moved():
    found = windows()
    for batch in GatherLoader(found, found, 2, seed=3):
        y = batch.to("cpu").y
        assert len(batch.x) == len(y.question) == len(y.positions)
        assert y.question.unique().tolist() == list(range(len(y.texts)))
        assert all(answer in text for text, answers in zip(y.texts, y.golds) for answer in answers)
    alone = take(found, found, torch.tensor([4, 2]))
    assert alone.y.golds == [["“seven” boats"], ["Zoë Łukasz"]]
    assert torch.equal(alone.x[: len(found.padded(slice(4, 5))[0])], found.padded(slice(4, 5))[0])


def test_at_prediction_there_are_windows_but_no_answers():
    found, y = fitted("wordpiece", 40, 12).align(frame(QUESTIONS), None, "span")
    assert spans(y).golds == [[]] * len(QUESTIONS)
    assert (spans(y).positions == 0).all()
    assert torch.equal(found.padded(slice(0, 7))[0], windows().padded(slice(0, 7))[0])


def test_a_question_that_fills_the_window_is_refused_and_one_that_nearly_does_gets_windows_that_share_less():
    rows = [*QUESTIONS, ("boats " * 80, ENGLISH, [])]
    preprocessor = fitted("wordpiece", 40, 12, rows)
    with pytest.raises(UserError, match=r"a question has 80 tokens.*starts with 'boats boats"):
        preprocessor.align(frame(rows), targets(rows), "span")
    rows[-1] = ("boats " * 29, ENGLISH, ["1844"])
    y = spans(preprocessor.align(frame(rows), targets(rows), "span")[0])
    assert marked(y)[-1] == {"1844"}
    assert (y.context[y.question == 7].sum(1) <= 8).all()


def test_windows_are_cut_once_and_kept_as_plain_numbers(own_cache: Path):
    before = windows()
    (folder,) = (own_cache / "windows").iterdir()
    assert {path.suffix for path in folder.iterdir()} == {".npy", ".json"}
    time = folder.stat().st_mtime_ns
    after = windows()
    assert folder.stat().st_mtime_ns == time
    assert torch.equal(before.padded(slice(0, 3))[0], after.padded(slice(0, 3))[0])
    windows(stride=6)
    assert len(list((own_cache / "windows").iterdir())) == 2
