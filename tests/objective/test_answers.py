"""Exact match and F1 over several correct answers, against the definition of SQuAD's evaluation script."""

from __future__ import annotations

import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from warmstart.data.datamodule import TaskDataModule
from warmstart.data.preprocess.target_texts import Answers, ids_of
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.sources.text.xquad import XQuAD
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.seq2seq import NONE, VALUES, Seq2Seq
from warmstart.objective.span_qa import AnswerScore, exact_match, f1
from warmstart.objective.text_scores import TextScores

WORDS = ("the", "a", "Exe", "river", "river.", "RIVER", "96", "kilometres", "an", "sea!", "")


def normalized(text: str) -> str:
    """`normalize_answer` of the script."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_match(prediction: str, truth: str) -> float:
    return float(normalized(prediction) == normalized(truth))


def official_f1(prediction: str, truth: str) -> float:
    ours, theirs = normalized(prediction).split(), normalized(truth).split()
    same = sum((Counter(ours) & Counter(theirs)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def official(score: Callable[[str, str], float], rows: list[tuple[str, list[str]]]) -> float:
    """Mean over questions of `metric_max_over_ground_truths`."""
    return sum(max(score(found, truth) for truth in answers) for found, answers in rows) / len(rows)


def made_rows(count: int = 200) -> list[tuple[str, list[str]]]:
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 4))).strip()

    def answer() -> str:
        return f"{text()} {draw.choice(('Exe', '96', 'sea!'))}".strip()  # not empty once it is normalized

    return [(text(), [answer() for _ in range(draw.randint(1, 3))]) for _ in range(count)]


def test_generated_and_extracted_answers_get_the_scores_of_the_script():
    rows = made_rows()
    expected = {"answer_match": official(official_match, rows), "f1": official(official_f1, rows)}
    assert 0 < expected["answer_match"] < expected["f1"] < 1
    first = official(official_f1, [(found, answers[:1]) for found, answers in rows])
    assert first < expected["f1"]  # the further answers count
    scores = TextScores(lambda y: y, lambda y: [answers[0] for answers in y], answers=lambda y: y)
    for start in range(0, len(rows), 50):
        scores.update(*map(list, zip(*rows[start : start + 50])))
    found = scores.compute()
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for name, score in (("answer_match", exact_match), ("f1", f1)):
        metric = AnswerScore(score, lambda outputs, y: [SimpleNamespace(text=text) for text in outputs])
        metric.update([found for found, _ in rows], SimpleNamespace(golds=[answers for _, answers in rows]))
        assert float(metric.compute()) == pytest.approx(expected[name])


def questions(folder: Path) -> Path:
    context = "The river Exe flows for 96 kilometres to the sea."
    answers = [{"text": text, "answer_start": context.index(text)} for text in ("96 kilometres", "96")]
    articles = [
        {"title": f"{n}", "paragraphs": [{"context": context, "qas": [{"question": "How long?", "answers": answers}]}]}
        for n in range(12)
    ]
    for number, article in enumerate(articles):
        article["paragraphs"][0]["context"] += f" It has {number} bridges."
    path = folder / "squad.json"
    path.write_text(json.dumps({"data": articles}))
    return path


def test_all_answers_of_a_question_reach_the_metrics_and_the_first_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    source = XQuAD(lambda columns: Preprocessor("bpe", 300, 64, columns=columns), str(questions(tmp_path)), None)
    data = TaskDataModule(source, "sequence", 4, 0).prepare()
    batch = next(iter(data.val_dataloader()))
    assert isinstance(batch.y, Answers)
    assert batch.to("cpu").y.texts == [["96 kilometres", "96"]] * len(batch.x)
    backbone = SimpleNamespace(abilities=frozenset({"decode"}))
    objective = Seq2Seq(backbone, data.spec, cross_entropy, metric="f1", length=8)
    objective.read_texts(data.preprocessor)
    assert objective.target_texts(batch.y) == ["96 kilometres"] * len(batch.x)
    assert (ids_of(batch.y) != NONE).any(1).all()
    ids = torch.tensor(data.preprocessor.backend_tokenizer.encode("96").ids)
    outputs = torch.cat([torch.zeros(VALUES), ids.float()]).expand(len(batch.x), -1)
    assert objective.scores(outputs, batch.y).tolist() == [1.0] * len(batch.x)
    all_rows = data.parts["test"][1]
    assert objective.answers(all_rows) == [["96 kilometres", "96"]] * len(all_rows)
    spans = TaskDataModule(source, "span", 4, 0).prepare()
    assert spans.parts["test"][1].golds[0] == ["96 kilometres", "96"]
