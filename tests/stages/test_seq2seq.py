"""Sequence to sequence: own and Hugging Face encoder-decoders, generated predictions, and export."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from hydra import compose, initialize_config_dir
from tests.conftest import FAST
from tests.huggingface.encoder_decoder import saved_encoder_decoder
from tests.objective.test_objectives import set_up

from warmstart import main
from warmstart.config.expand import expand
from warmstart.huggingface.load import open_hub
from warmstart.huggingface.seq2seq import HuggingFaceSeq2Seq
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.seq2seq import Seq2Seq
from warmstart.run.saved import load_weights
from warmstart.stages.chat import Screen
from warmstart.strategy.ia3 import IA3
from warmstart.strategy.lora import LoRA

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


def command(*words: str) -> int:
    """Run a command line in this process; return its exit status."""
    with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
        return main.run(compose("train", overrides=expand(list(words))))


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


@pytest.mark.parametrize("strategy", [LoRA, IA3])
def test_texts_are_generated_with_the_adapters(strategy):
    backbone, _, batch = set_up("span_corruption")
    adapters = strategy()
    adapters.prepare(backbone)
    with torch.no_grad():
        for wrapper in adapters.wrappers.values():
            for name, value in wrapper.named_parameters():
                if "lora_" in name or "ia3_" in name:
                    value.add_(0.1 * torch.randn(value.shape))
    backbone.eval()
    ids = torch.randint(5, 30, (8, 6))
    ours = backbone.decode(backbone(batch.x).tokens, None, ids)
    found = backbone.generator()(input_ids=batch.x, decoder_input_ids=ids).logits
    assert torch.allclose(ours, found, atol=1e-4)


def test_an_output_layer_of_its_own_is_loaded(tmp_path):
    folder = saved_encoder_decoder(tmp_path / "t5", "t5")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(folder)
    saved = open_hub(f"hf:{folder}")
    backbone = HuggingFaceSeq2Seq(saved.spec, saved.card["backbone"]["architecture"])
    load_weights(backbone, saved.weights, "t5")
    assert torch.equal(backbone.model.lm_head.weight, model.lm_head.weight)


def test_no_more_is_generated_than_the_decoder_has_positions():
    backbone, _, batch = set_up("span_corruption")
    objective = Seq2Seq(backbone, None, cross_entropy, length=64)
    assert objective.generate(backbone.eval(), backbone(batch.x).tokens, None).shape == (8, 64)


@pytest.fixture(scope="module")
def learned(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny T5 on the pairs."""
    folder = tmp_path_factory.mktemp("learned")
    model = saved_encoder_decoder(folder / "t5", "t5")
    words = on(
        pairs, f"init=hf:{model}", "optimizer.lr=0.01", "trainer.max_epochs=4", "objective.length=8", "test=false"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARMSTART_CACHE", str(folder / "cache"))
        assert command("stage=finetune", *words, f"output_dir={folder}") == 0
    (run,) = (folder / "finetune/seq2seq").iterdir()
    return run


def test_texts_of_a_prompt_and_of_a_file_are_those_of_predictions(cli, learned: Path, pairs: Path, tmp_path: Path):
    texts = list(pd.read_csv(pairs).question[:5])
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    predicted = cli("stage=predict", f"run={learned}", f"input={tmp_path / 'texts.txt'}")
    expected = [json.loads(line)["text"] for line in predicted.out.splitlines()]
    of_file = cli("stage=generate", f"run={learned}", f"input={tmp_path / 'texts.txt'}", "length=8")
    assert of_file.status == 0, of_file.err
    assert [line.strip() for line in of_file.out.splitlines()] == expected
    records = [json.loads(line) for line in (of_file.run("generate") / "generated.jsonl").read_text().splitlines()]
    assert [(record["prompt"], record["completion"]) for record in records] == list(zip(texts, expected))
    of_prompt = cli("stage=generate", f"run={learned}", f"prompt={texts[0]}", "length=8")
    assert of_prompt.out.strip() == expected[0]
    sampled = cli("stage=generate", f"run={learned}", f"prompt={texts[0]}", "temperature=3", "samples=8", "length=4")
    assert len(set(sampled.out.splitlines())) > 1


def test_a_text_is_printed_while_it_is_generated(cli, learned: Path, monkeypatch: pytest.MonkeyPatch):
    pieces = []
    monkeypatch.setattr(sys.stdout.__class__, "isatty", lambda stream: True, raising=False)
    monkeypatch.setattr(Screen, "on_finalized_text", lambda self, piece, stream_end=False: pieces.append(piece))
    outcome = cli("stage=generate", f"run={learned}", "prompt=color of the big rose", "length=8")
    assert outcome.status == 0, outcome.err
    (line,) = (outcome.run("generate") / "generated.jsonl").read_text().splitlines()
    assert "".join(pieces).strip() == json.loads(line)["completion"]
    assert len(pieces) > 1


def test_what_cannot_be_generated_is_refused_in_a_line(cli, learned: Path):
    empty = cli("stage=generate", f"run={learned}")
    assert (empty.status, "needs an input text: add prompt=TEXT" in empty.error) == (2, True)
    chat = cli("stage=chat", f"run={learned}")
    assert (chat.status, "use stage=generate" in chat.error) == (2, True)
