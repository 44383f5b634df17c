"""Generation, chat and export of causal models that are finetuned on conversations."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from hydra import compose, initialize_config_dir
from tests.conftest import FAST
from tests.huggingface.decoder import saved_decoder
from transformers import LlamaForCausalLM

from warmstart import main
from warmstart.config.expand import expand
from warmstart.core import screen

transformers.logging.disable_progress_bar()

WORDS = ("cat", "dog", "bird", "fish", "tree", "house")
CONTEXT = 128


def make_model(folder: Path) -> None:
    """A tiny decoder whose texts end with another token than its messages."""
    saved_decoder(folder, CONTEXT)
    for name, change in (("tokenizer_config", {"eos_token": "<|endoftext|>"}), ("config", {"eos_token_id": 0})):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def command(*words: str) -> int:
    """Run a command line in this process; return its exit status."""
    with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
        return main.run(compose("train", overrides=expand(list(words))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, conversations, and two runs that were finetuned on them: outputs/full and outputs/lora."""
    folder = tmp_path_factory.mktemp("chat")
    make_model(folder / "model")
    rows = [
        {"prompt": f"Say {word}{end}", "completion": word} for word in WORDS for end in (".", "!", " now.", " again!")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    limits = ("trainer.max_epochs=-1", "trainer.min_steps=null", "trainer.val_check_interval=40", *FAST[:1])
    own = ("experiment=chat", f"data.root={folder / 'rows.jsonl'}", f"data.tokenizer.context={CONTEXT}", *limits)
    own = (*own, f"init=hf:{folder / 'model'}", "trainer.check_val_every_n_epoch=null", "data.batch_size=8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARMSTART_CACHE", str(folder / "cache"))
        full = ("trainer.max_steps=80", "optimizer.lr=0.01", "data.test_generations=2")
        assert command("stage=finetune", *own, *full, f"output_dir={folder / 'full'}") == 0
        lora = (
            "strategy=lora",
            "trainer.max_steps=40",
            "optimizer.lr=0.003",
            "test=false",
            "strategy.layers=all_linear",
        )
        assert command("stage=finetune", *own, *lora, f"output_dir={folder / 'lora'}") == 0
        dora = ("strategy.dora=true", "strategy.rslora=true", "trainer.max_steps=5")
        assert command("stage=finetune", *own, *lora, *dora, f"output_dir={folder / 'dora'}") == 0
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(folder / "cache"))


def run_of(folder: Path, kind: str = "full") -> str:
    """The override that selects the finetuned run."""
    (path,) = (folder / kind / "finetune/chat").iterdir()
    return f"run={path}"


def generated(outcome) -> list[dict]:
    assert outcome.status == 0, outcome.err
    return [json.loads(line) for line in (outcome.run("generate") / "generated.jsonl").read_text().splitlines()]


GREEDY = ("temperature=0", "length=12")


def test_a_file_of_prompts_gives_the_answers_of_single_prompts_and_they_end(cli, folder: Path, tmp_path: Path):
    texts = ["Say cat.", "Say a much longer message, to pad the others: fish!", "Say tree again!"]
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n\n" for line in texts))
    run = run_of(folder)
    found = generated(cli("stage=generate", run, f"input={tmp_path / 'lines.txt'}", *GREEDY))
    assert [row["messages"] for row in found] == [[{"role": "user", "content": line}] for line in texts]
    assert [row["row"] for row in found] == [1, 3, 5]
    for line, row in zip(texts, found):
        (single,) = generated(cli("stage=generate", run, f"prompt=\"'{line}'\"", *GREEDY))
        assert single["completion"] == row["completion"]
    answers = [row["completion"] for row in found]
    assert (answers[0], answers[2]) == ("cat", "tree")  # it stops at the token that ends a message, not at `length`
    sampled = cli("stage=generate", run, "prompt=Hello", "samples=40", "length=3", "temperature=2")
    assert len({row["completion"] for row in generated(sampled)}) > 1


def test_rows_of_every_format_are_prompts_with_their_references(cli, folder: Path, tmp_path: Path):
    chat = [{"role": "user", "content": "Say dog."}, {"role": "assistant", "content": "dog"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n" + json.dumps({"messages": chat[:1]}))
    (tmp_path / "prompts.csv").write_text("prompt,completion\nSay dog.,dog\nSay cat.,\n")
    for name in ("chats.jsonl", "prompts.csv"):
        with_reference, without = generated(cli("stage=generate", run_of(folder), f"input={tmp_path / name}", *GREEDY))
        assert with_reference["messages"] == chat[:1]
        assert (with_reference["completion"], with_reference["reference"]) == ("dog", "dog")
        assert "reference" not in without


@torch.no_grad()
def test_a_hugging_face_model_answers_as_it_is(cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = f"run=hf:{folder / 'model'}"
    outcome = cli("stage=generate", model, "prompt='Say cat.'", *GREEDY)
    (found,) = generated(outcome)
    pipeline = transformers.pipeline("text-generation", model=str(folder / "model"))
    (expected,) = pipeline([{"role": "user", "content": "Say cat."}], do_sample=False, max_new_tokens=12)
    assert found["completion"] == expected["generated_text"][-1]["content"]
    assert outcome.record("generate")["parent"]["path"] == f"hf:{folder / 'model'}"
    monkeypatch.setattr(sys, "stdin", io.StringIO("Say cat.\n"))
    talk = cli("stage=chat", model, "temperature=0", "length=12")
    assert talk.status == 0, talk.err
    assert talk.out.rstrip("\n") == screen.safe(found["completion"]).rstrip("\n")
    bare = tmp_path / "bare"
    shutil.copytree(folder / "model", bare)
    (bare / "chat_template.jinja").unlink()
    assert generated(cli("stage=generate", f"run=hf:{bare}", "prompt=Say", *GREEDY))[0]["prompt"] == "Say"
    refused(cli("stage=chat", f"run=hf:{bare}"), "has no chat template: use stage=generate")
    refused(cli("stage=chat", "run=hf:nowhere/at/all"), "run=hf:nowhere/at/all: there is no such folder")


def test_test_prompts_are_generated_for_after_training(folder: Path):
    (path,) = (folder / "full/finetune/chat").glob("*/generations.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 2
    assert all(row["reference"] in row["messages"][-1]["content"] and row["completion"] for row in rows)


def test_a_conversation_ends_at_an_empty_line_and_drops_old_turns(cli, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def talk(lines: str):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        return cli("stage=chat", run_of(folder), "temperature=0", "length=30")

    outcome = talk("Say cat.\nSay dog.\n\nSay tree.\n")
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[0] == "cat"
    assert len(outcome.out.splitlines()) == 2
    assert "dropped" not in outcome.err
    long = talk(f"Say cat.\n{'x' * 200}\n" + "Say dog.\n" * 9)
    assert "the context is full: the oldest turn is dropped" in long.err
    assert "the message has" in long.err
    assert len(long.out.splitlines()) == 10


@torch.no_grad()
def test_a_pipeline_of_transformers_answers_as_the_run_does(cli, folder: Path, tmp_path: Path):
    exported = cli("stage=export", run_of(folder), f"folder={tmp_path / 'model'}")
    assert exported.status == 0, exported.err
    assert exported.record("export")["export"]["difference"] < 1e-4
    pipeline = transformers.pipeline("text-generation", model=str(tmp_path / "model"))
    messages = [{"role": "user", "content": "Say bird now."}]
    (found,) = pipeline(messages, do_sample=False, max_new_tokens=12)
    (ours,) = generated(cli("stage=generate", run_of(folder), "prompt='Say bird now.'", *GREEDY))
    assert found["generated_text"] == [*messages, {"role": "assistant", "content": ours["completion"]}]
    assert ours["completion"] == "bird"
    assert pipeline.model.generation_config.eos_token_id == [2, 0]  # of a message, and of a text


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_folder_has_the_logits_of_the_merged_model(cli, folder: Path, tmp_path: Path, kind: str):
    run = run_of(folder, kind)
    for form in ("hf", "peft"):
        exported = cli("stage=export", run, f"format={form}", f"folder={tmp_path / form}")
        assert exported.status == 0, exported.err
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in (tmp_path / "peft").iterdir()}
    base = LlamaForCausalLM.from_pretrained(folder / "model")
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "hf")
    x = torch.arange(40).reshape(2, 20)
    expected, before = merged(x).logits, base(x).logits
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "peft")(x).logits
    assert torch.allclose(adapted, expected, atol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-3)


def refused(outcome, *parts: str) -> None:
    assert outcome.status == 2, outcome.err
    assert len(outcome.error.splitlines()) <= 2
    for part in parts:
        assert part in outcome.error


def test_what_cannot_be_generated_or_exported_is_refused(cli, folder: Path, tmp_path: Path):
    run, generate = run_of(folder), ("stage=generate", run_of(folder))
    refused(cli("stage=export", run, "format=peft"), "has no adapter")
    refused(cli(*generate), "give one, or input=FILE")
    refused(cli(*generate, f"prompt='{'x' * 200}'"), "but the context of the model has 128")
    bad = {
        "bad.jsonl": ('{"messages": [{"role": "user", "content": ""}]}', "row 1, message 1", "empty"),
        "role.jsonl": ('{"messages": [{"role": "poet", "content": "a"}]}', "unknown role 'poet'"),
        "blank.txt": ("\n", "is empty"),
        "other.csv": ("question\nWhy?\n", "has no conversations"),
        "long.txt": (f"Hi\n{'x' * 200}\n", "row 2: the prompt has"),
    }
    for name, (content, *parts) in bad.items():
        (tmp_path / name).write_text(content)
        refused(cli(*generate, f"input={tmp_path / name}"), *parts)
    refused(cli(*generate, f"input={tmp_path / 'long.txt'}", "prompt=Hi"), "remove one")
    refused(cli(*generate, f"input={tmp_path / 'none.txt'}"), "no such file")
    assert not list((tmp_path / "outputs").glob("generate/*/*"))
    digits = cli("stage=finetune", "experiment=digits", "init=scratch", "data.test_generations=1", *FAST)
    refused(digits, "data.test_generations=1", "objective=completion")
