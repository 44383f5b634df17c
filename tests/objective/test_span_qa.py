"""Extractive question answering: decoding, SQuAD metrics in English and Chinese, and training."""

# ruff: noqa: RUF001 (Chinese texts)

from __future__ import annotations

import functools
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torchmetrics.functional.text import squad

from warmstart.core import protocols
from warmstart.core.batch import Batch, Features
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.data.loader import take
from warmstart.data.preprocess.spans import Spans
from warmstart.data.preprocess.text import Preprocessor
from warmstart.loss.brier import brier
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.loss.focal import focal
from warmstart.main import CONF
from warmstart.objective import span_qa
from warmstart.objective.span_qa import SpanQA
from warmstart.training.components import build

CONTEXT = (
    "The library opened in 1911 after a fire had destroyed its predecessor. Its architect, Ada Brook, came from Leeds. "
    "About 40,000 books were given by readers in the first year, and the reading room holds 212 people."
)
CHINESE = "图书馆于1911年开放，建筑师是来自利兹的布鲁克。第一年读者捐赠了约四万本书。"
ROWS = [
    ("When did it open?", CONTEXT, ["1911", "in 1911"]),
    ("Who built it?", CONTEXT, ["Ada Brook"]),
    ("Where was she from?", CONTEXT, ["Leeds"]),
    ("How many people fit in?", CONTEXT, ["212 people", "212"]),
    ("建筑师是谁？", CHINESE, ["布鲁克"]),
    ("捐赠了多少书？", CHINESE, ["约四万本"]),
]
UNANSWERED = ("Who paid for it?", CONTEXT, [])


class Tiny(protocols.Backbone, nn.Module):
    """Two layers of attention over at most 48 tokens."""

    def __init__(self, vocabulary: int, width: int = 48):
        super().__init__()
        self.width = width
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Embedding(48, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        tokens = self.embed(x) + self.place.weight[: x.shape[1]]
        tokens = self.blocks(tokens, src_key_padding_mask=None if mask is None else ~mask)
        return Features(tokens, tokens.mean(1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


def set_up(rows: list[tuple] = ROWS, context: int = 36, **settings) -> tuple[nn.Module, SpanQA, Batch]:
    torch.manual_seed(0)
    x = pd.DataFrame({"text": [row[0] for row in rows], "pair": [row[1] for row in rows]})
    y = np.empty(len(rows), dtype=object)
    y[:] = [[(answer, where.index(answer)) for answer in answers] for _, where, answers in rows]
    preprocessor = Preprocessor("wordpiece", 400, context, 8)
    preprocessor.fit(x)
    inputs, targets = preprocessor.align(x, y, "span")
    backbone = Tiny(preprocessor.vocabulary.size)
    node = OmegaConf.merge(OmegaConf.load(CONF / "objective" / "span_qa.yaml"), settings)
    spec = Spec("text", (context,), vocabulary=preprocessor.vocabulary)
    objective = build(node, backbone=backbone, spec=spec, loss=cross_entropy)
    return backbone, objective, take(inputs, targets, slice(0, len(rows)))


def measured(objective: SpanQA, outputs: Tensor, y: Spans) -> dict[str, float]:
    return {name: float(metric(outputs, y)) for name, metric in objective.metrics().items()}


def learn(backbone: nn.Module, objective: SpanQA, batch: Batch, steps: int = 120) -> None:
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.step(backbone, batch).loss.backward()
        optimizer.step()


def test_a_tiny_model_learns_a_handful_of_questions_by_heart():
    backbone, objective, batch = set_up()
    assert len(batch.x) > len(ROWS)
    learn(backbone, objective, batch)
    with torch.no_grad():
        outputs = objective.predict(backbone, batch)
    assert measured(objective, outputs, batch.y) == {"exact_match": 1.0, "f1": 1.0}
    assert objective.scores(outputs, batch.y).tolist() == [1.0] * len(ROWS)
    answers = objective.to_records(outputs, batch, Spec("text", (36,)))
    for answer, (_, context, golds) in zip(answers, ROWS, strict=True):
        assert answer["answer"] in golds
        assert context[answer["start"] :].startswith(answer["answer"])
        assert 0 < answer["probability"] <= 1
    assert (answers[2]["answer"], answers[2]["start"]) == ("Leeds", CONTEXT.index("Leeds"))


def test_it_learns_unanswerable_questions_and_gives_an_answer_if_required():
    backbone, objective, batch = set_up([*ROWS[:2], UNANSWERED], no_answer=True)
    learn(backbone, objective, batch)
    with torch.no_grad():
        outputs = objective.predict(backbone, batch)
    assert measured(objective, outputs, batch.y) == {"exact_match": 1.0, "f1": 1.0}
    spec = Spec("text", (36,))
    assert objective.to_records(outputs, batch, spec)[2] == {
        "answer": "",
        "start": None,
        "probability": pytest.approx(1, abs=0.1),
    }
    always = SpanQA(backbone, spec, cross_entropy)
    forced = always.to_records(outputs, batch, spec)[2]
    assert forced["answer"]
    assert CONTEXT[forced["start"] :].startswith(forced["answer"])
    is_nothing = not span_qa.normalize(forced["answer"])  # an article alone, which SQuAD's own score drops
    assert always.scores(outputs, batch.y).tolist() == [1.0, 1.0, float(is_nothing)]


def test_what_training_shows_is_readable():
    backbone, objective, batch = set_up([ROWS[0], UNANSWERED])
    lines = objective.examples(backbone, batch, lambda numbers: f"{len(numbers)} tokens")
    assert len(lines) == 2
    assert lines[0].endswith("** (1911, in 1911)")
    assert lines[1].endswith("** (no answer)")


def one_window(scores: list[tuple[float, float]], context: list[bool], golds: list[str] | None = None) -> tuple:
    """Outputs (1, T, 2) of a window whose tokens are single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"[: len(scores)]
    offsets = torch.tensor([[n, n + 1] for n in range(len(scores))])
    y = Spans(
        torch.zeros(1, 2).long(),
        torch.zeros(1).long(),
        torch.tensor([context]),
        offsets[None],
        [letters],
        [golds or []],
    )
    return torch.tensor([scores]), y


def test_the_best_answer_lies_in_the_context_ends_after_it_starts_and_is_not_too_long():
    scores = [(9, 9), (8, 8), (0, 5), (4, 0), (0, 1), (1, 0), (0, 3), (7, 7)]
    outputs, y = one_window(scores, [False, False, *[True] * 5, False])
    find = functools.partial(span_qa.find_answers, no_answer=False)
    assert find(outputs, y, longest=30)[0][:2] == ("defg", 3)
    assert find(outputs, y, longest=3)[0][:2] == ("c", 2)
    assert find(outputs, y, longest=4)[0][:2] == ("defg", 3)


def test_the_best_answer_agrees_with_trying_all_spans():
    generator = torch.Generator().manual_seed(0)
    for longest in (1, 2, 5, 40):
        scores = torch.randn(12, 2, generator=generator)
        outputs, y = one_window(scores.tolist(), [False] * 3 + [True] * 8 + [False])
        spans = [(i, j) for i in range(3, 11) for j in range(i, min(11, i + longest))]
        i, j = max(spans, key=lambda span: scores[span[0], 0] + scores[span[1], 1])
        (found,) = span_qa.find_answers(outputs, y, longest, False)
        assert (found.text, found.start) == (y.texts[0][i : j + 1], i)
        allowed = scores[[0, *range(3, 11)]].log_softmax(0)
        place = [0, *range(3, 11)]
        expected = (allowed[place.index(i), 0] + allowed[place.index(j), 1]).exp().item()
        assert found.probability == pytest.approx(expected, rel=1e-4)


def test_windows_of_a_question_compete_and_no_answer_must_win_in_all_of_them():
    def outputs(*windows: tuple[float, float]) -> Tensor:
        """Per window the score of no answer and of its one answer, each as start and end."""
        return torch.tensor([[[none, none], [0, 0], [answer, answer]] for none, answer in windows])

    offsets = torch.tensor([[[0, 0], [0, 0], [n, n + 1]] for n in (0, 1, 0)])
    context = torch.tensor([[False, False, True]] * 3)
    y = Spans(torch.zeros(3, 2).long(), torch.tensor([0, 0, 1]), context, offsets, ["xy", "z"], [["y"], []])
    found = span_qa.find_answers(outputs((9, 1), (2, 3), (3, 2)), y, 30, True)
    assert [answer.text for answer in found] == ["y", ""]
    found = span_qa.find_answers(outputs((9, 1), (4, 3), (3, 2)), y, 30, True)
    assert [answer.text for answer in found] == ["", ""]
    found = span_qa.find_answers(outputs((9, 4), (4, 3), (3, 2)), y, 30, False)
    assert [(answer.text, answer.start) for answer in found] == [("x", 0), ("z", 0)]


def test_a_context_without_tokens_has_no_answer_and_broken_scores_do_not_stop_the_run():
    outputs, y = one_window([(1, 1), (2, 2)], [False, False])
    assert span_qa.find_answers(outputs, y, 30, False)[0][:2] == ("", None)
    outputs, y = one_window([(1, 1), (math.nan, 2), (0, 1)], [False, True, True])
    assert span_qa.find_answers(outputs, y, 30, False)[0].text == "c"


def test_scores_are_those_of_the_squad_script_on_english():
    words = ["the", "The", "a", "cat", "Cat.", "sat", "(on)", "mat", "an", "U.S.", "3,000", "half-time", "café"]
    draw = random.Random(0)
    for _ in range(200):
        texts = [" ".join(draw.choices(words, k=draw.randint(1, 5))) for _ in range(4)]
        prediction, *golds = texts
        golds = [f"{gold} mat" for gold in golds]  # never nothing but articles, where SQuAD's two scripts differ
        theirs = squad(
            [{"prediction_text": prediction, "id": "0"}],
            [{"answers": {"answer_start": [0] * 3, "text": golds}, "id": "0"}],
        )
        assert span_qa.f1(prediction, golds) == pytest.approx(theirs["f1"].item() / 100, abs=1e-6)
        assert span_qa.exact_match(prediction, golds) == theirs["exact_match"].item() / 100


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "f1"),
    [
        ("约什·诺曼", ["约什诺曼"], 1, 1),
        ("《红楼梦》。", ["红楼梦"], 1, 1),
        ("红楼", ["红楼梦"], 0, 0.8),
        ("1911年", ["1911"], 0, 2 / 3),
        ("NFL联盟", ["nfl 联盟"], 1, 1),
        ("東京タワー", ["東京", "タワー"], 0, 0.75),
        ("“seven” boats", ["seven boats"], 0, 0.5),
        ("서울 대학교", ["서울"], 0, 2 / 3),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
        ("the", ["a"], 1, 1),
        ("cat", ["", "the cat"], 1, 1),
    ],
)
def test_scores_by_hand(prediction: str, golds: list[str], exact: float, f1: float):
    assert span_qa.exact_match(prediction, golds) == exact
    assert span_qa.f1(prediction, golds) == pytest.approx(f1)


def test_metrics_are_the_means_of_the_questions_scores_however_they_are_batched():
    backbone, objective, batch = set_up([*ROWS, UNANSWERED], no_answer=True)
    learn(backbone, objective, batch, 12)
    with torch.no_grad():
        outputs = objective.predict(backbone, batch)
    metric = objective.metrics()["f1"]
    scores = objective.scores(outputs, batch.y)
    for rows in (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5, 6])):
        keep = torch.isin(batch.y.question, rows)
        part = Spans(
            batch.y.positions[keep],
            batch.y.question[keep] - rows[0],
            batch.y.context[keep],
            batch.y.offsets[keep],
            [batch.y.texts[row] for row in rows],
            [batch.y.golds[row] for row in rows],
        )
        metric.update(outputs[keep], part)
    assert metric.compute().item() == pytest.approx(scores.mean().item())
    assert 0 <= metric.compute() <= 1


@pytest.mark.parametrize("loss", [cross_entropy, focal, brier])
def test_losses_count_windows_and_see_neither_padding_nor_the_question(loss):
    backbone, _, batch = set_up(ROWS[:3])
    objective = SpanQA(backbone, Spec("text", (36,)), loss)
    output = objective.step(backbone, batch)
    assert output.count == len(batch.x)
    assert output.outputs.shape == (*batch.x.shape, 2)
    output.loss.backward()
    assert torch.isfinite(objective.head.weight.grad).all()
    wider = Spans(
        batch.y.positions,
        batch.y.question,
        nn.functional.pad(batch.y.context, (0, 5)),
        nn.functional.pad(batch.y.offsets, (0, 0, 0, 5)),
        batch.y.texts,
        batch.y.golds,
    )
    mask = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
    padded = Batch(nn.functional.pad(batch.x, (0, 5)), wider, nn.functional.pad(mask, (0, 5)))
    assert objective.step(backbone, padded).loss.item() == pytest.approx(output.loss.item(), rel=1e-4)


def test_many_windows_are_computed_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch):
    backbone, objective, batch = set_up()
    complete = objective.predict(backbone, batch)
    monkeypatch.setattr("warmstart.objective.span_qa.POSITIONS", 100)
    with torch.no_grad():
        assert torch.allclose(objective.predict(backbone, batch), complete, atol=1e-5)


def test_settings_that_make_no_sense_are_refused():
    spec, backbone = Spec("text", (36,)), Tiny(10)
    with pytest.raises(UserError, match="label_smoothing=0"):
        SpanQA(backbone, spec, functools.partial(cross_entropy, label_smoothing=0.1))
