"""Instruction tuning: from conversations in every format, on own and on Hugging Face models."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.conftest import FAST
from tests.huggingface.decoder import saved_decoder

from warmstart.core.errors import UserError
from warmstart.data.readers.chats import to_prompts
from warmstart.data.readers.table import read_table
from warmstart.objective.classification import Classification
from warmstart.objective.completion import Completion
from warmstart.objective.head import LOGITS
from warmstart.objective.text_metrics import rouge_l
from warmstart.training.frozen import without_head

COLORS = ["red", "green", "blue", "white"]
THINGS = ["rose", "leaf", "sky", "snow", "berry", "stone", "wave", "cloud", "fire", "night"]


def rows() -> list[dict]:
    """Return questions with answers that are a function of the question."""
    asked = [(thing, size) for thing in THINGS for size in ("big", "small", "old", "new")]
    colors = {thing: COLORS[number % len(COLORS)] for number, thing in enumerate(THINGS)}
    return [{"prompt": f"color of the {size} {thing}?", "completion": colors[thing]} for thing, size in asked]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_decoder(tmp_path_factory.mktemp("hub") / "llama")


def on(prompts: Path, folder: Path) -> tuple[str, ...]:
    return ("experiment=chat", f"data.root={prompts}", f"init=hf:{folder}", *FAST, "data.tokenizer.context=64")


def test_learns_the_answers_of_a_hub_model(cli, prompts, llama):
    learned = cli(
        "stage=finetune",
        *on(prompts, llama),
        "optimizer.lr=0.01",
        "trainer.max_epochs=30",
        "data.batch_size=4",
        "data.pack=true",
        "objective.metric=rouge_l",
        "objective.length=8",
        "data.test_generations=6",
        "trainer.check_val_every_n_epoch=10",
    )
    assert learned.status == 0, learned.err
    record = learned.record("finetune")
    assert record["transfer"]["fraction"] == 1
    assert record["transfer"]["head"] == "loaded"
    assert record["metrics"]["val/exact_match"] > 0.9
    lines = (learned.run("finetune") / "generations.jsonl").read_text().splitlines()
    expected = [rouge_l(row["completion"], row["reference"]) for row in map(json.loads, lines)]
    scores = np.load(learned.run("finetune") / "test_scores.npy")
    assert scores.tolist() == pytest.approx(expected)
    assert record["metrics"]["test/rouge_l"] == pytest.approx(scores.mean())
    assert "supervised parts of training rows" in learned.err
    assert "<|im_start|>assistant\n[[" in learned.err
    again = cli("stage=evaluate", f"run={learned.run('finetune')}")
    assert again.status == 0, again.err
    assert again.record("evaluate")["metrics"]["test/loss"] == pytest.approx(record["metrics"]["test/loss"], rel=1e-4)


def test_packed_and_padded_rows_have_equal_losses(cli, prompts, llama):
    losses = []
    for packs in ("true", "false"):
        found = cli(
            "stage=finetune",
            *on(prompts, llama),
            "optimizer.lr=1e-30",
            f"data.pack={packs}",
            "data.batch_size=64",
            "trainer.precision=null",
        )
        assert found.status == 0, found.err
        losses.append(found.record("finetune")["metrics"]["train/loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


FORMATS = {
    "messages.jsonl": {"messages": lambda q, a: [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
    "sharegpt.json": {"conversations": lambda q, a: [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    "alpaca.json": {"instruction": lambda q, a: q, "input": lambda q, a: "", "output": lambda q, a: a},
    "prompts.csv": {"prompt": lambda q, a: q, "completion": lambda q, a: a},
    "prompts.parquet": {"prompt": lambda q, a: q, "completion": lambda q, a: a},
}


def test_all_formats_give_the_same_run(cli, llama, tmp_path):
    losses = {}
    for name, columns in FORMATS.items():
        made = [{key: make(*row.values()) for key, make in columns.items()} for row in rows()]
        path = tmp_path / name
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in made))
        elif path.suffix == ".json":
            path.write_text(json.dumps(made))
        else:
            frame = pd.DataFrame(made)
            frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        found = cli("stage=finetune", *on(path, llama), "trainer.max_steps=1", "trainer.max_epochs=-1", "logger=[]")
        assert found.status == 0, found.err
        losses[name] = found.record("finetune")["metrics"]["test/loss"]
    assert len(set(losses.values())) == 1, losses


BAD = {
    "no column of conversations": ({"question": "a"}, "has no conversations"),
    "no messages": ({"messages": []}, "row 1: there are no messages"),
    "unknown role": ({"messages": [{"role": "boss", "content": "x"}]}, "message 1: unknown role 'boss'"),
    "assistant missing": ({"messages": [{"role": "user", "content": "x"}]}, "the last message is of user"),
    "empty completion": ({"prompt": "x", "completion": " "}, "message 2: the content of assistant is empty"),
    "no list": ({"messages": "hello"}, "'hello' is no list of messages"),
    "list of texts": ({"prompt": "x", "completion": ["y"]}, "is no list of messages with role and content"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_conversations_are_refused(cli, llama, tmp_path, name):
    row, message = BAD[name]
    path = tmp_path / "bad.jsonl"
    others = [] if "question" in row else rows()
    path.write_text("".join(json.dumps(one) + "\n" for one in [row, *others]))
    refused = cli("stage=finetune", *on(path, llama))
    assert refused.status == 2
    assert message in refused.error
    assert not refused.runs("finetune")


def test_a_tokenizer_without_template_needs_a_named_one(cli, prompts, llama, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    for path in llama.iterdir():
        if path.name != "chat_template.jinja":
            (folder / path.name).write_bytes(path.read_bytes())
    refused = cli("stage=finetune", *on(prompts, folder))
    assert refused.status == 2
    assert "the tokenizer of this model has no chat template: set data.template to plain or chatml" in refused.error
    named = cli(
        "stage=finetune", *on(prompts, folder), "data.template=chatml", "trainer.max_steps=1", "trainer.max_epochs=-1"
    )
    assert named.status == 0, named.err


def test_an_encoder_is_refused(cli, prompts):
    refused = cli("stage=finetune", "experiment=chat", f"data.root={prompts}", "init=scratch", "backbone=tiny")
    assert refused.status == 2
    assert "objective=completion needs a backbone that has causal attention" in refused.error


def test_transfer_compares_with_the_untouched_and_the_prompted_start(cli, prompts, llama):
    words = ("transfer.seeds=1", "transfer.labels=[all]", "transfer.arms=[pretrained,untouched,prompt]")
    settings = ("trainer.max_steps=2", "trainer.val_check_interval=2", "data.tokenizer.context=64", "logger=[]")
    settings = (*settings, "objective.metric=rouge_l", "objective.length=2", "forgetting=true", "optimizer.lr=0.01")
    settings = (*settings, "pretrain.data.pack=64")
    found = cli("experiment=chat", f"data.root={prompts}", f"transfer.start=hf:{llama}", *words, *settings)
    assert found.status == 0, found.err
    scores = {}
    for path in (found.run("transfer") / "runs").iterdir():
        if (path / "run.json").exists():
            scores[path.name.split("-")[0]] = json.loads((path / "run.json").read_text())["metrics"]
    assert scores["pretrained"]["test/completion_loss"] < scores["untouched"]["test/completion_loss"]
    assert scores["prompt"]["test/completion_loss"] != scores["untouched"]["test/completion_loss"]
    assert {"test/rouge_l"} <= set(scores["untouched"])
    (tuned,) = (found.run("transfer") / "runs").glob("pretrained-*/run.json")
    forgotten = json.loads(tuned.read_text())["forgetting"]
    assert (forgotten["metric"], forgotten["data"]) == ("val/loss", "shakespeare")
    assert forgotten["after"] != forgotten["before"] == pytest.approx(math.log(300), abs=0.5)
    assert "forgetting, val/loss" in (found.run("transfer") / "report.md").read_text()
    assert "test/rouge_l" in found.out


def test_rows_without_labels_of_tokens_are_not_packed(cli):
    refused = cli("stage=finetune", "init=scratch", "data.pack=true")
    assert refused.status == 2
    assert "data.pack=true packs rows whose tokens have labels" in refused.error


def test_an_accumulated_step_equals_that_of_one_batch(cli, prompts, llama):
    losses = []
    for size in (4, 28):
        settings = (f"data.batch_size={size}", f"trainer.accumulate_grad_batches={28 // size}", "trainer.max_epochs=-1")
        found = cli("stage=finetune", *on(prompts, llama), *settings, "trainer.max_steps=1", "trainer.precision=null")
        assert found.status == 0, found.err
        losses.append(found.record("finetune")["metrics"]["test/loss"])
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)


@pytest.mark.parametrize("metric", ["loss", "completion_loss", "token_accuracy"])
def test_a_diverged_row_makes_the_metric_nan(metric):
    found = Completion.metrics(SimpleNamespace(metric="loss"))[metric]
    found.update(torch.tensor([[1.0, 2.0, 1.0], [math.nan, 2.0, math.nan]]), None)
    assert math.isnan(found.compute())


def test_pack_of_a_finetuning_is_true_or_false(cli, prompts, llama):
    refused = cli("stage=finetune", *on(prompts, llama), "data.pack=128")
    assert refused.status == 2
    assert "data.pack=128: must be true or false in a finetuning" in refused.error


def test_conversations_are_pretrained_on(cli, prompts):
    small = (
        "backbone.width=16",
        "backbone.heads=2",
        "backbone.depth=1",
        "trainer.max_steps=1",
        "trainer.val_check_interval=1",
    )
    found = cli("stage=pretrain", "experiment=chat", "data=chat", f"data.root={prompts}", "data.pack=32", *small)
    assert found.status == 0, found.err


def test_adapters_keep_the_loaded_head(cli, prompts, llama):
    found = cli("stage=finetune", *on(prompts, llama), "strategy=lora", "trainer.max_steps=2", "trainer.max_epochs=-1")
    assert found.status == 0, found.err
    before = load_file(llama / "model.safetensors")["lm_head.weight"]
    (after,) = load_file(found.run("finetune") / "model/head.safetensors").values()
    assert torch.equal(after, before)
    assert found.record("finetune")["cost"]["trained_parameters"] < before.numel()


def without_lm_head(llama: Path, folder: Path) -> Path:
    """Return a copy of a model that has the weights of its trunk only."""
    shutil.copytree(llama, folder)
    transformers.AutoModel.from_pretrained(llama).save_pretrained(folder)
    return folder


def test_a_start_without_a_head_is_refused(cli, prompts, llama, tmp_path):
    bare = without_lm_head(llama, tmp_path / "bare")
    reason = "objective=completion trains a loaded head further, but"
    refused = cli("stage=finetune", *on(prompts, bare))
    assert refused.status == 2
    assert reason in refused.error
    assert not refused.runs("finetune")
    planned = cli("experiment=chat", f"data.root={prompts}", f"transfer.start=hf:{bare}", "transfer.arms=[pretrained]")
    assert planned.status == 2
    assert f"transfer.start=hf:{bare} (arm pretrained): {reason}" in planned.error
    other = cli(
        "experiment=chat", f"data.root={prompts}", "objective@pretrain.objective=tsdae", "pretrain.data.pack=null"
    )
    assert other.status == 2
    assert reason in other.error


def conversations(path: Path) -> list[list[dict]]:
    """Return the conversations of a file, which may have no completions."""
    return [prompt.given for prompt in to_prompts(read_table(path), path.name)]


def test_nested_numbers_are_unchanged_and_cells_may_be_json_or_arrays(tmp_path):
    call = {"type": "function", "function": {"name": "add", "arguments": {"x": 3, "y": [0.50, True, None]}}}
    messages = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "user", "content": "Again."},
    ]
    expected = [messages, messages]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": 1.0, "messages": messages}) + "\n" for _ in "ab"))
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": messages}] * 2))
    pd.DataFrame({"messages": [json.dumps(messages)] * 2}).to_csv(tmp_path / "rows.csv", index=False)
    for name in ("rows.jsonl", "rows.json", "rows.csv"):
        assert conversations(tmp_path / name) == expected
    assert read_table(tmp_path / "rows.jsonl")["id"].tolist() == ["1", "1"]
    call["function"]["arguments"] = {"x": 3}
    pd.DataFrame({"messages": [messages]}).to_parquet(tmp_path / "rows.parquet")
    (found,) = conversations(tmp_path / "rows.parquet")
    assert found[1]["tool_calls"] == [call]


def test_system_and_history_of_alpaca_are_messages(tmp_path):
    row = {"instruction": "And of Peru?", "output": "Lima.", "system": "Be brief.", "tools": "[]"}
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{**row, "history": [["The capital of France?", "Paris."]]}, {**row, "history": []}]))
    earlier, without = conversations(path)
    assert [message["role"] for message in earlier] == ["system", "user", "assistant", "user"]
    assert [message["content"] for message in earlier[:3]] == ["Be brief.", "The capital of France?", "Paris."]
    assert without == [earlier[0], earlier[3]]


def with_content(content: object) -> dict:
    """Return a row of a question and an answer with this content."""
    return {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": content}]}


UNSUPPORTED = {
    "tools": ({"instruction": "a", "output": "b", "tools": '[{"name": "f"}]'}, "column tools is not supported"),
    "history": ({"instruction": "a", "output": "b", "history": [["q"]]}, "is no list of pairs of question and answer"),
    "two systems": (
        {"system": "a", "messages": [{"role": "system", "content": "b"}, *with_content("c")["messages"]]},
        "remove one",
    ),
    "role": ({"messages": [{"role": ["user"], "content": "x"}]}, "message 1: unknown role ['user']"),
    "parts": (with_content([{"type": "text", "text": "y"}]), "a list, but must be a text"),
    "bool": (with_content(False), "the content of assistant is False, a bool, but must be a text"),
    "surrogate": (with_content("\ud800"), "row 1, message 2: an unpaired surrogate"),
    "surrogate in history": (
        {"instruction": "a", "output": "b", "history": [["q\ud800", "a"]]},
        "row 1, message 1: an unpaired surrogate",
    ),
    "surrogate in arguments": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"x": "\ud800"}]}]},
        "row 1, message 1: an unpaired surrogate",
    ),
    "json": ({"messages": '[{"role": '}, "is no list of messages"),
    "number": ({"conversations": 3}, "is no list of messages with from and value"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_rows_are_refused(tmp_path, name):
    row, message = UNSUPPORTED[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=re.escape(message)):
        conversations(path)


@pytest.mark.parametrize("cell", [True, 3, b"x"])
def test_cells_of_parquet_that_are_no_lists_are_refused(tmp_path, cell):
    pd.DataFrame({"conversations": [cell]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="is no list of messages"):
        conversations(tmp_path / "rows.parquet")


def test_max_tokens_counts_those_of_packed_blocks(cli, prompts, llama):
    limits = ("data.batch_size=1", "trainer.max_tokens=300", "trainer.max_epochs=-1", "trainer.val_check_interval=1")
    found = cli("stage=finetune", *on(prompts, llama), *limits, "data.pack=true", "test=false", "logger=[]")
    assert found.status == 0, found.err
    assert 300 / 64 <= found.record("finetune")["cost"]["steps"] <= 300 / 50


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (("stage=finetune", "strategy=auto"), "strategy=auto"),
        (("transfer.arms=[scratch]", "+arm.scratch.length=2"), "arm.scratch.length"),
        (("transfer.arms=[pretrained]", "transfer.budgets.converged=[pretrained]"), "transfer.budgets.converged"),
    ],
)
def test_lengths_in_rows_are_refused_for_packed_rows(cli, prompts, llama, words, setting):
    start = f"init=hf:{llama}" if "stage=finetune" in words else f"transfer.start=hf:{llama}"
    refused = cli("experiment=chat", f"data.root={prompts}", start, "data.pack=true", *words)
    assert refused.status == 2
    assert f"{setting} counts rows, but data.pack=true makes blocks" in refused.error


def test_logits_are_limited_for_large_vocabularies():
    backbone = SimpleNamespace(target_size=2**20, head=lambda task, outputs: torch.nn.Identity())
    assert Completion(backbone, None, None).chunk * backbone.target_size == LOGITS
    backbone.target_size = 1000
    assert Completion(backbone, None, None).chunk == 8192


def test_a_finetuned_start_with_a_tied_head_has_a_head():
    start = SimpleNamespace(name="run", card={"stage": "finetune"}, head={}, spec=SimpleNamespace(labels=()))
    assert without_head(start, Completion, ()) is None
    assert without_head(start, Classification, ()) is not None
