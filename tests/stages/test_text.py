"""Texts in all stages: pretrain, finetune, predict, generate, export, transfer; and refused settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import FAST
from tests.huggingface.test_text import saved_folder

WORDS = {"good": ["fine", "lovely", "bright", "warm", "clever"], "bad": ["dull", "grim", "awful", "cold", "stale"]}
SMALL = ("backbone=tiny", "data.tokenizer.vocabulary=200", "data.tokenizer.context=32")
PACKED = ("data.batch_size=8", "data.pack=32", "optimizer.lr=0.01")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Short reviews whose words tell the class."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(120):
        label = ("good", "bad")[number % 2]
        words = [*generator.choice(WORDS[label], 3), *generator.choice(["the", "film", "was", "a", "plot"], 4)]
        rows.append({"review": " ".join(generator.permutation(words)), "verdict": label})
    path = tmp_path / "reviews.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def on(path: Path) -> tuple[str, ...]:
    return ("experiment=text", f"data.root={path}", "data.text=review", "data.target=verdict")


def test_masked_pretraining_then_finetuning_on_the_same_tokens(cli, reviews: Path, tmp_path: Path):
    pretrained = cli("stage=pretrain", *on(reviews), *FAST, *SMALL, *PACKED, "trainer.max_epochs=3")
    assert pretrained.status == 0, pretrained.err
    record = pretrained.record("pretrain")
    assert {"val/loss", "val/masked_accuracy", "val/perplexity"} <= set(record["metrics"])
    finetuned = cli("stage=finetune", *on(reviews), *FAST, *SMALL, "trainer.max_epochs=8", "optimizer.lr=0.005")
    assert finetuned.status == 0, finetuned.err
    record = finetuned.record("finetune")
    assert record["transfer"]["fraction"] == 1
    assert record["metrics"]["test/accuracy"] > 0.9

    (tmp_path / "lines.txt").write_text("a lovely warm film\nthe plot was dull and stale\n")
    (tmp_path / "table.csv").write_text("review\na lovely warm film\nthe plot was dull and stale\n")
    answers = [
        [json.loads(line) for line in cli("stage=predict", f"input={tmp_path / name}").out.splitlines()]
        for name in ("lines.txt", "table.csv")
    ]
    assert answers[0] == answers[1]
    assert [answer["label"] for answer in answers[0]] == ["good", "bad"]
    evaluated = cli("stage=evaluate", "experiment=text")
    assert evaluated.record("evaluate")["metrics"]["test/accuracy"] == record["metrics"]["test/accuracy"]

    exported = cli("stage=export", "experiment=text", f"folder={tmp_path / 'exported'}")
    assert exported.status == 0, exported.err
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "exported")(
        ["a lovely warm film", "the plot was dull and stale"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits
    probabilities = logits.softmax(-1).max(-1)
    assert [model.config.id2label[int(label)] for label in probabilities.indices] == ["good", "bad"]
    assert probabilities.values.tolist() == pytest.approx([a["probability"] for a in answers[0]], abs=1e-4)


def test_a_character_model_continues_a_prompt_deterministically(cli, tmp_path: Path):
    (tmp_path / "plays.txt").write_text("ROMEO:\nAy me!\n\nJULIET:\nO Romeo, Romeo!\n\n" * 60)
    words = ("experiment=shakespeare", "data=text_files", f"data.root={tmp_path / 'plays.txt'}")
    words = (*words, "data/tokenizer=characters", "backbone.depth=1", "backbone.width=32")
    pretrained = cli(
        "stage=pretrain", *words, "visualization=[]", *PACKED, "trainer.max_steps=20", "trainer.val_check_interval=10"
    )
    assert pretrained.status == 0, pretrained.err
    metrics = pretrained.record("pretrain")["metrics"]
    assert metrics["val/bits_per_byte"] == pytest.approx(metrics["val/loss"] / np.log(2), rel=0.05)
    assert metrics["val/loss"] < 2.5

    def generated(*more: str):
        return cli("stage=generate", "experiment=shakespeare", "prompt='ROMEO:'", "length=20", *more)

    first = generated()
    assert first.status == 0, first.err
    assert first.out.startswith("ROMEO:")
    assert generated().out == first.out
    assert generated("seed=1").out != first.out
    assert len(generated("samples=3", "temperature=0").out.split("ROMEO:")) >= 4
    refused = cli("stage=generate", "experiment=shakespeare", "prompt='Roméo'")
    assert refused.status == 2
    assert "'é'" in refused.error
    assert cli("stage=generate", "experiment=shakespeare", "temperature=-1").status == 2


def test_a_transfer_gives_scratch_the_tokenizer_of_the_pretraining(cli, reviews: Path):
    words = ("transfer.seeds=1", "transfer.labels=[5]", "transfer.arms=[pretrained,scratch,linear]")
    own = [f"pretrain.{word}" for word in (*PACKED, "trainer.max_epochs=1", "trainer.precision=null")]
    outcome = cli(
        *("stage=transfer", *on(reviews), *words, *SMALL, *own, "trainer.max_steps=2", "trainer.val_check_interval=2"),
        *("transfer.budgets={steps:[pretrained,scratch,linear]}", "trainer.precision=null"),
    )
    assert outcome.status == 0, outcome.err
    report = json.loads((outcome.run("transfer") / "report.json").read_text())
    assert report["failed"] == [] if "failed" in report else True
    runs = outcome.run("transfer") / "runs"
    states = {
        name: json.loads((next(runs.glob(f"{name}*")) / "model" / "preprocessor.json").read_text())
        for name in ("pretrain", "scratch", "pretrained-")
    }
    assert states["scratch"]["tokenizer"] == states["pretrain"]["tokenizer"] == states["pretrained-"]["tokenizer"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("objective=causal",), "backbone.causal=true"),
        (("data.text=revue",), "review"),
        (("data.pack=4",), "data.pack=4"),
        (("data.tokenizer.model=letters",), "data.tokenizer.model=letters"),
        (("backbone=mlp",), "data=text_table is text"),
        (("init=hf:/nowhere",), "init=hf:/nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line_or_two(cli, reviews: Path, words: tuple[str, ...], message: str):
    refused = cli("stage=pretrain", *on(reviews), *FAST, *SMALL, *words)
    assert refused.status == 2
    assert message in refused.error
    assert len(refused.err.splitlines()) <= 3


def test_a_model_of_another_vocabulary_is_refused(cli, reviews: Path):
    first = cli("stage=pretrain", *on(reviews), *FAST, *SMALL, *PACKED)
    weights = first.run("pretrain") / "model"
    state = json.loads((weights / "preprocessor.json").read_text())
    assert cli("stage=finetune", *on(reviews), *FAST, *SMALL, "backbone.width=32").status == 2
    state["tokenizer"] = state["tokenizer"].replace('"film"', '"filmish"')
    (weights / "preprocessor.json").write_text(json.dumps(state))
    refused = cli("stage=finetune", *on(reviews), *FAST, *SMALL)
    assert refused.status == 2
    assert "preprocessor.json" in refused.error


def test_a_hugging_face_model_is_pretrained_further_then_finetuned_and_written_out(cli, reviews: Path, tmp_path: Path):
    folder = saved_folder(tmp_path, "bert")
    own = (f"init=hf:{folder}", "data.tokenizer.context=32", *FAST)
    pretrained = cli("stage=pretrain", *on(reviews), *own, "data.batch_size=8", "data.pack=16")
    assert pretrained.status == 0, pretrained.err
    assert pretrained.record("pretrain")["parent"]["path"] == f"hf:{folder}"
    tuned = cli("stage=finetune", *on(reviews), *FAST, "data.tokenizer.context=32")
    assert tuned.status == 0, tuned.err
    assert tuned.record("finetune")["transfer"]["fraction"] == 1
    assert tuned.record("finetune")["parent"]["id"] == pretrained.record("pretrain")["id"]
    exported = cli("stage=export", "experiment=text", f"folder={tmp_path / 'out'}")
    assert exported.status == 0, exported.err
    again = cli("stage=finetune", *on(reviews), f"init=hf:{tmp_path / 'out'}", *FAST, "data.tokenizer.context=32")
    assert again.status == 0, again.err
    cold = cli("stage=finetune", *on(reviews), f"init=random:hf:{folder}", *FAST, "data.tokenizer.context=32")
    assert cold.status == 0, cold.err
    assert cold.record("finetune")["transfer"] is None
