"""Two processes train objectives on real texts and recordings as one process does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from tests.distributed.test_runs import opened, same, stage_of, train
from tests.huggingface.decoder import saved_decoder
from tests.huggingface.tiny_whisper import made_recordings, saved_whisper
from tests.objective import test_span_qa as questions
from tests.stages import test_preferences, test_seq2seq, test_transcribe
from tests.stages.test_completion import rows

from warmstart.config.pipeline import prepare
from warmstart.data.loader import take
from warmstart.distributed.processes import part_of

LAST = (  # larger steps amplify rounding
    *("optimizer=sgd", "optimizer.lr=0.01", "trainer.precision=32-true", "trainer.log_every_n_steps=1"),
    *("trainer.min_steps=null", "trainer.max_epochs=1", "data.batch_size=7", "logger=[]"),
)


def completion(folder: Path) -> tuple[str, ...]:
    path = test_preferences.write(folder / "prompts.jsonl", rows())
    own = ("stage=finetune", "experiment=chat", f"data.root={path}", "data.tokenizer.context=64", "visualization=[]")
    return (*own, f"init=hf:{saved_decoder(folder / 'llama')}", "data.pack=true")


def dpo(folder: Path) -> tuple[str, ...]:
    path = test_preferences.write(folder / "pairs.jsonl", test_preferences.made())
    return ("stage=finetune", *test_preferences.preferring(path, f"hf:{saved_decoder(folder / 'llama')}"))


def kto(folder: Path) -> tuple[str, ...]:
    return (*dpo(folder), "objective=kto")


def seq2seq(folder: Path) -> tuple[str, ...]:
    pairs = [(f"color of the {row['prompt']}", row["completion"]) for row in rows()]
    pd.DataFrame(pairs, columns=["question", "answer"]).to_csv(folder / "pairs.csv", index=False)
    small = ("backbone.width=16", "backbone.depth=1", "backbone.heads=2", "data.tokenizer.vocabulary=300")
    return ("stage=finetune", *test_seq2seq.on(folder / "pairs.csv", "init=scratch", "objective.length=4", *small))


def transcription(folder: Path) -> tuple[str, ...]:
    return test_transcribe.on(made_recordings(folder / "recordings", 20), saved_whisper(folder / "whisper"))


@pytest.mark.parametrize("words", [completion, dpo, kto, seq2seq, transcription], ids=lambda one: one.__name__)
def test_an_objective_on_files(
    words: Callable[[Path], tuple[str, ...]],
    composed: Callable[..., DictConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recordings").mkdir()
    config = prepare(composed(*words(tmp_path), *LAST, f"output_dir={tmp_path / 'one'}"), True)
    alone = stage_of(config, None).path
    path = opened(config, tmp_path / "two")
    train(config, path, [], 2)
    same(alone, path)


def test_parts_of_questions_have_all_their_windows():
    preprocessor = questions.Preprocessor("wordpiece", 400, 36, 8)
    x = pd.DataFrame({"text": [row[0] for row in questions.ROWS], "pair": [row[1] for row in questions.ROWS]})
    preprocessor.fit(x)
    y = pd.Series([[(gold, row[1].index(gold)) for gold in row[2]] for row in questions.ROWS]).to_numpy()
    inputs, targets = preprocessor.align(x, y, "span")
    order = torch.arange(len(x)).flip(0)
    complete = take(inputs, targets, order)
    parts = [take(inputs, targets, order, part_of(len(x), number, 2)) for number in range(2)]
    assert torch.equal(torch.cat([part.x for part in parts]), complete.x)
    assert torch.equal(torch.cat([part.y.positions for part in parts]), complete.y.positions)
    assert [gold for part in parts for gold in part.y.golds] == complete.y.golds
    for part in parts:
        assert part.y.question.unique().tolist() == list(range(len(part.y.texts)))
        assert len(part.x) == part.part.stop - part.part.start
