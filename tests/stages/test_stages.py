"""All stages on built-in and synthetic data: run folders, lineage, and consistent metrics."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.conftest import FAST

from warmstart.data.sources.vectors import Vectors
from warmstart.main import CONF

VECTORS = ("experiment=vectors", "data.rows=400")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(120, 3)), columns=["a", "b", "c"])
    frame["kind"] = generator.choice(["u", "v"], 120)
    frame["y"] = np.where(frame.a + frame.b > 0, "yes", "no")
    frame["z"] = 1000 + 50 * frame.a
    frame["p"], frame["q"] = (frame.a > 0).astype(int), (frame.b > 0).astype(int)
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


def test_the_story_by_hand(cli):
    pretrain = cli("stage=pretrain", "trainer.max_epochs=2")
    assert pretrain.status == 0, pretrain.err
    base = pretrain.run("pretrain")
    for name in (
        "run.json",
        "config.yaml",
        "metrics.csv",
        "train.log",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    ):
        assert (base / name).is_file(), name
    record = pretrain.record("pretrain")
    assert record["status"] == "done"
    assert record["parent"] is None
    assert record["cost"]["steps"] == 40
    assert record["cost"]["examples"] == 2 * record["data"]["rows"]["train"] == 2 * 1257
    assert {"train/loss", "val/loss"} <= set(record["metrics"])
    digest = hashlib.sha256((base / "model/model.safetensors").read_bytes()).hexdigest()
    assert record["weights_sha256"] == digest
    plain = torch.load(base / "model/pretrained_model.pth", weights_only=True)
    tensors = load_file(base / "model/model.safetensors")
    assert plain.keys() == tensors.keys()
    assert all(torch.equal(plain[name], tensors[name]) for name in plain)

    finetune = cli("stage=finetune", "trainer.max_epochs=2")
    assert finetune.status == 0, finetune.err
    assert f"init=latest is {base}" in finetune.err
    assert f"loaded 4 of 4 tensors, 100% of parameters, from {base}" in finetune.err
    record = finetune.record("finetune")
    assert record["parent"]["id"] == base.name
    assert record["parent"]["weights_sha256"] == digest
    assert record["transfer"] == {"loaded": 4, "missing": [], "unexpected": [], "mismatched": [], "fraction": 1.0}
    assert 0.5 < record["metrics"]["test/accuracy"] <= 1
    assert "test/accuracy" in finetune.out

    evaluate = cli("stage=evaluate", "run=latest")
    assert evaluate.status == 0, evaluate.err
    metrics = evaluate.record("evaluate")["metrics"]
    assert metrics == {name: v for name, v in record["metrics"].items() if name.startswith("test")}
    for checkpoint in (finetune.run("finetune") / "checkpoints").iterdir():
        assert torch.load(checkpoint, weights_only=True)["global_step"] > 0


def test_predictions_are_json_lines_and_agree_with_the_test_accuracy(cli, tmp_path: Path):
    cli("stage=finetune", "init=scratch", "trainer.max_epochs=3")
    from warmstart.data.sources.image.digits import Digits

    test = Digits().load("category").test
    path = tmp_path / "new.csv"
    pd.DataFrame(test.x.reshape(len(test), -1)).to_csv(path, index=False)
    predict = cli("stage=predict", "run=latest", f"input={path}")
    assert predict.status == 0, predict.err
    answers = [json.loads(line) for line in predict.out.splitlines()]
    assert len(answers) == len(test)
    right = np.mean([int(answer["label"]) == y for answer, y in zip(answers, test.y)])
    assert right == pytest.approx(predict.record("finetune")["metrics"]["test/accuracy"], abs=1e-6)
    assert (predict.run("predict") / "predictions.jsonl").read_text() == predict.out


def test_scratch_has_no_parent_and_a_probe_keeps_its_backbone_to_the_bit(cli):
    cli("stage=pretrain", *FAST)
    base = load_file(cli("stage=pretrain", *FAST).run("pretrain") / "model/model.safetensors")
    probe = cli("stage=finetune", "strategy=linear_probe", "trainer.max_epochs=2")
    after = load_file(probe.run("finetune") / "model/model.safetensors")
    assert all(torch.equal(base[name], after[name]) for name in base)
    scratch = cli("stage=finetune", "init=scratch", *FAST)
    assert scratch.record("finetune")["parent"] is None
    assert scratch.record("finetune")["transfer"] is None


@pytest.mark.parametrize(
    "words",
    [
        ("objective=masked", "backbone=vit", "backbone.stem.patch=2", "backbone.depth=1"),
        ("objective=contrastive", "data/augment=shift"),
        (
            *("objective=contrastive", "data/augment=crop", "data.augment.crop.scale=0.5"),
            *("backbone=resnet", "backbone.widths=[8,8,16,16]"),
        ),
        ("loss=huber", "optimizer=sgd", "scheduler=one_cycle"),
    ],
    ids=lambda words: words[0] + (words[1] if len(words) > 1 else ""),
)
def test_every_objective_pretrains_and_its_backbone_finetunes(words: tuple[str, ...], cli):
    assert cli("stage=pretrain", *FAST, *words).status == 0
    backbone = [word for word in words if word.startswith("backbone")]
    finetune = cli("stage=finetune", *FAST, *backbone)
    assert finetune.status == 0, finetune.err
    assert finetune.record("finetune")["transfer"]["fraction"] == 1.0


@pytest.mark.parametrize(
    ("words", "metric"),
    [
        (("data.target=y", "data.categorical=[kind]", "data.ignore=[z,p,q]"), "test/accuracy"),
        (("data.target=z", "objective=regression", "data.categorical=[kind,y]", "data.ignore=[p,q]"), "test/r2"),
        (("data.target=[p,q]", "objective=multilabel", "data.categorical=[kind,y]", "data.ignore=[z]"), "test/f1"),
    ],
    ids=["classification", "regression", "multilabel"],
)
def test_a_table_in_all_stages(words: tuple[str, ...], metric: str, cli, table: Path):
    source = ("experiment=table", f"data.root={table}")
    pretraining = [word for word in words if not word.startswith("objective")]
    assert cli("stage=pretrain", *source, *pretraining, *FAST).status == 0
    finetune = cli("stage=finetune", *source, *words, "trainer.max_epochs=30", "optimizer.lr=0.01")
    assert finetune.status == 0, finetune.err
    assert finetune.record("finetune")["metrics"][metric] > 0.8
    new = table.parent / "new.csv"
    pd.read_csv(table).drop(columns=["y"]).assign(y="no").head(5).to_csv(new, index=False)
    predict = cli("stage=predict", "experiment=table", f"input={new}")
    assert predict.status == 0, predict.err
    assert len(predict.out.splitlines()) == 5


def test_regression_predicts_in_the_units_of_the_table(cli, table: Path):
    words = ("experiment=table", f"data.root={table}", "data.target=z", "data.ignore=[y,p,q,kind]")
    cli("stage=finetune", "init=scratch", *words, "objective=regression", "trainer.max_epochs=60", "optimizer.lr=0.01")
    predict = cli("stage=predict", "experiment=table", f"input={table}")
    values = [json.loads(line)["z"] for line in predict.out.splitlines()]
    assert np.abs(np.array(values) - pd.read_csv(table).z).mean() < 20


def test_a_folder_of_images_in_all_stages(cli, tmp_path: Path):
    for label, shade in (("dark", 60), ("light", 200)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng(index).integers(shade - 50, shade + 50, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{index}.png")
    words = ("experiment=images", f"data.root={tmp_path / 'photos'}", "data.size=8", "backbone.widths=[8,8,8,8]")
    assert cli("stage=pretrain", *words, *FAST).status == 0
    finetune = cli("stage=finetune", *words, "trainer.max_epochs=3")
    assert finetune.status == 0, finetune.err
    one = tmp_path / "photos" / "light" / "0.png"
    predict = cli("stage=predict", "experiment=images", f"input={one}")
    assert json.loads(predict.out)["label"] in {"dark", "light"}


def test_textbook_transfer_helps_and_the_mean_loss_is_that_of_a_hand_computation(cli):
    words = ("experiment=vectors", "data.rows=2000", "visualization=[]", "trainer.max_epochs=10")
    often = "trainer.check_val_every_n_epoch=5"
    pretrain = cli("stage=pretrain", *words, often, "data.batch_size=32", "optimizer.lr=0.1")
    assert pretrain.status == 0, pretrain.err
    words = ("stage=finetune", *words, often, "data.labels_per_class=50")
    finetune, scratch = cli(*words), cli(*words, "init=scratch")
    gain = finetune.record("finetune")["metrics"]["test/accuracy"]
    runs = [json.loads((run / "run.json").read_text()) for run in scratch.runs("finetune")]
    scores = {run["parent"] is None: run["metrics"]["test/accuracy"] for run in runs}
    assert scores[False] > scores[True] + 0.1, (gain, scores)

    run = next(r for r in finetune.runs("finetune") if json.loads((r / "run.json").read_text())["parent"])
    record = json.loads((run / "run.json").read_text())
    splits = Vectors(rows=2000).load("category")
    weights, head = load_file(run / "model/model.safetensors"), load_file(run / "model/head.safetensors")
    scale = json.loads((run / "model/preprocessor.json").read_text())
    x = (splits.test.x.astype(np.float64) - scale["mean"]) / scale["std"]
    for layer in range(2):
        z = x @ weights[f"layers.{layer}.0.weight"].double().numpy().T + weights[f"layers.{layer}.0.bias"].numpy()
        x = torch.nn.functional.gelu(torch.from_numpy(z)).numpy()
    logits = x @ head["head.weight"].double().numpy().T + head["head.bias"].numpy()
    logits -= logits.max(1, keepdims=True)
    by_hand = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(len(x)), splits.test.y]
    assert record["metrics"]["test/loss"] == pytest.approx(by_hand.mean(), rel=1e-4)


def test_train_loss_counts_a_smaller_last_batch_by_its_rows(cli):
    """With a learning rate of next to nothing the weights stand still, so the mean over the data can be had by hand."""
    words = (*VECTORS, "optimizer.lr=1e-30", "data.batch_size=64", *FAST)
    pretrain = cli("stage=pretrain", *words)
    run = pretrain.run("pretrain")
    rows = pretrain.record("pretrain")["data"]["rows"]["train"]
    assert rows % 64
    train = Vectors(rows=400).load("value").train
    weights, head = load_file(run / "model/model.safetensors"), load_file(run / "model/head.safetensors")
    scale = json.loads((run / "model/preprocessor.json").read_text())
    x = torch.from_numpy((train.x - np.float32(scale["mean"])) / np.float32(scale["std"]))
    for layer in range(2):
        x = torch.nn.functional.gelu(x @ weights[f"layers.{layer}.0.weight"].T + weights[f"layers.{layer}.0.bias"])
    outputs = x @ head["head.weight"].T + head["head.bias"]
    per_row = (outputs - torch.from_numpy(train.y)).square().mean(1)
    assert pretrain.record("pretrain")["metrics"]["train/loss"] == pytest.approx(per_row.mean().item(), rel=1e-5)
    mean_of_batch_means = torch.stack([part.mean() for part in per_row.split(64)]).mean().item()
    assert abs(mean_of_batch_means - per_row.mean().item()) > 1e-5 * per_row.mean().item()


@pytest.mark.parametrize("rung", sorted(path.stem for path in (CONF / "debug").glob("*.yaml")))
def test_every_rung_of_the_debug_ladder_runs(rung: str, cli):
    outcome = cli("stage=finetune", "init=scratch", "visualization=[]", "data.labels_per_class=20", f"debug={rung}")
    assert outcome.status == 0, outcome.err
    assert outcome.record("finetune")["metrics"]["train/loss"] < (0.05 if rung == "overfit" else 3)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(cli):
    for seed in (0, 0, 1):
        assert cli("stage=finetune", "init=scratch", f"seed={seed}", *FAST).status == 0
    runs = cli("stage=report", "runs=nowhere").runs("finetune")
    digests = [json.loads((run / "run.json").read_text())["weights_sha256"] for run in runs]
    assert sorted(digests.count(digest) for digest in digests) == [1, 2, 2]
