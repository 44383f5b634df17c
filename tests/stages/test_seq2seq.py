"""Sequence to sequence: own and Hugging Face encoder-decoders, generated predictions, and export."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import transformers
from tests.conftest import FAST
from tests.huggingface.encoder_decoder import saved_encoder_decoder

COLORS = ["red", "green", "blue", "white"]
THINGS = ["rose", "leaf", "sky", "snow", "berry", "stone", "wave", "cloud", "fire", "night"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    rows = [
        (f"color of the {size} {thing}", COLORS[number % len(COLORS)])
        for number, thing in enumerate(THINGS)
        for size in ("big", "small", "old", "new")
    ]
    pd.DataFrame(rows, columns=["question", "answer"]).to_csv(path, index=False)
    return path


def on(pairs: Path, *words: str) -> tuple[str, ...]:
    columns = ("data.text=question", "data.target=answer")
    return ("experiment=seq2seq", f"data.root={pairs}", *columns, *FAST, "data.tokenizer.context=32", *words)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_hub_model_learns_and_its_export_generates_the_same(cli, pairs, tmp_path, kind):
    folder = saved_encoder_decoder(tmp_path / kind, kind)
    size = (
        "optimizer.lr=0.01",
        "trainer.max_epochs=40",
        "trainer.check_val_every_n_epoch=20",
        "data.batch_size=8",
        "objective.length=8",
    )
    learned = cli("stage=finetune", *on(pairs, f"init=hf:{folder}", *size))
    assert learned.status == 0, learned.err
    record = learned.record("finetune")
    assert record["transfer"]["fraction"] == 1
    assert record["metrics"]["val/exact_match"] > 0.5
    run = learned.run("finetune")
    again = cli("stage=evaluate", f"run={run}")
    assert again.record("evaluate")["metrics"]["test/chrf"] == pytest.approx(record["metrics"]["test/chrf"])
    predicted = cli("stage=predict", f"run={run}", f"input={pairs}")
    ours = [json.loads(line)["text"] for line in predicted.out.splitlines()]
    exported = cli("stage=export", f"run={run}", f"folder={tmp_path / 'exported'}")
    assert exported.status == 0, exported.err
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "exported")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    inputs = tokenizer(
        list(pd.read_csv(pairs).question), padding=True, return_tensors="pt", return_token_type_ids=False
    )
    found = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert [text.strip() for text in tokenizer.batch_decode(found, skip_special_tokens=True)] == ours
