"""Invalid input: status 2, one or two lines that name the problem, no traceback, no partial run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.conftest import FAST, Outcome
from tests.records import change_run, write_run

from warmstart.run.checksums import write_checksums


def refused(outcome: Outcome, *parts: str) -> None:
    """The outcome is a clear error that says each of `parts`, and left no run behind."""
    assert outcome.status == 2, outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.error.splitlines()) == 1
    assert len(outcome.error) < 500
    for part in parts:
        assert part in outcome.error, outcome.error


VALUES = ("stage=finetune", "experiment=table", "objective=regression", "data.root=some/name", "data.target=y")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("stage=finetun",), ("stage=finetun does not exist", "finetune")),
        (("stage=pretrain", "loss=crossentropy"), ("loss=crossentropy does not exist", "cross_entropy")),
        (("stage=pretrain", "backbone=resnet50"), ("backbone=resnet50 does not exist", "resnet18")),
        (("experiment=digit",), ("experiment=digit does not exist", "digits")),
        (("stage=pretrain", "optimizer.lrate=1"), ("optimizer.lrate", "no such key", "lr")),
        (("experiment=sst2", "pretrain.backbone.width=8"), ("pretrain.backbone is shared", "set backbone.width")),
        (("stage=pretrain", "trainer.max_epoch=1"), ("trainer.max_epoch", "max_epochs")),
        (("stage=pretrain", "strategy=full"), ("strategy",)),
        (("stage=evaluate", "loss=mse"), ("loss",)),
        (("stage=pretrain", "optimizer.lr=0"), ("optimizer.lr=0", "above 0")),
        (("stage=pretrain", "optimizer.lr=fast"), ("optimizer.lr=fast",)),
        (("stage=pretrain", "trainer.max_epochs=0"), ("trainer.max_epochs=0",)),
        (("stage=pretrain", "trainer.max_epochs=-1"), ("no limit",)),
        (("stage=pretrain", "data.batch_size=0"), ("data.batch_size=0",)),
        (("stage=pretrain", "data.batch_size=1.5"), ("data.batch_size=1.5",)),
        (("stage=pretrain", "data.batch_size=null"), ("data.batch_size=null", "above 0")),
        (("stage=pretrain", "trainer.max_epochs=null"), ("trainer.max_epochs=null",)),
        (("stage=pretrain", "trainer.devices=0"), ("trainer.devices=0",)),
        (("stage=pretrain", "+trainer.num_nodes=2"), ("trainer.num_nodes=2", "torchrun or Slurm")),
        (("stage=pretrain", "trainer.limit_val_batches=0"), ("trainer.limit_val_batches=0",)),
        (("stage=pretrain", "optimizer.lr=inf"), ("optimizer.lr=inf",)),
        (("stage=pretrain", "seed=abc"), ("seed=abc", "whole number")),
        (("stage=pretrain", "objective.drop=2"), ("drop=2",)),
        (("stage=pretrain", "backbone=vit", "backbone.stem.patch=0"), ("backbone.stem.patch=0",)),
        (("stage=pretrain", "backbone=vit", "backbone.stem.patch=3"), ("patch=3", "8 x 8")),
        (("stage=pretrain", "backbone=resnet", "backbone.widths=8"), ("backbone.widths=8",)),
        (("stage=pretrain", "backbone=resnet", "backbone.widths=[8]"), ("backbone.widths=[8]", "as many")),
        (("stage=pretrain", "backbone.hidden=[a]"), ("backbone.hidden=['a']", "whole numbers above 0")),
        (("stage=pretrain", "backbone=vit", "backbone.stem.patch=abc"), ("backbone.stem.patch=abc", "whole number")),
        (("stage=pretrain", "objective.noise=abc"), ("objective.noise=abc", "a number")),
        (("stage=finetune", "loss=focal", "loss.gamma=abc"), ("loss.gamma=abc", "a number")),
        (("stage=pretrain", "data.split_seed=-1"), ("data.split_seed=-1",)),
        (("stage=pretrain", "data.split_seed=null"), ("data.split_seed=null", "whole number")),
        (("stage=pretrain", "data/augment=shift", "data.augment.shift.pixels=-1"), ("data.augment.shift.pixels=-1",)),
        (("stage=pretrain", "objective=contrastive"), ("objective=contrastive", "data/augment=shift")),
        (
            ("stage=pretrain", "backbone=vit", "data/augment=crop", "data.augment.crop.size=4"),
            ("data.augment.crop.size=4", "one size", "resnet"),
        ),
        (
            ("stage=finetune", "data/augment=mixup", "data.augment.mixup.alpha=-1"),
            ("data.augment.mixup.alpha=-1", "above 0"),
        ),
        (("stage=pretrain", "data/augment=mixup"), ("data/augment=mixup", "objective=denoise", "multilabel")),
        (
            ("stage=pretrain", "objective=supervised_contrastive", "data/augment=[shift,cutmix]"),
            ("data/augment=cutmix", "objective=supervised_contrastive", "objective=classification"),
        ),
        (
            ("stage=finetune", "experiment=vectors", "data/augment=cutmix"),
            ("data/augment=cutmix", "data/augment=noise"),
        ),
        (("stage=finetune", "experiment=sst2", "data/augment=mixup"), ("data/augment=mixup", "text")),
        (
            (*VALUES, "data/augment=mixup"),
            ("data/augment=mixup", "objective=regression", "objective=classification or objective=multilabel"),
        ),
        (("stage=finetune", "experiment=xquad", "data/augment=mixup"), ("data/augment=mixup", "text")),
        (("stage=finetune", "experiment=speech", "data/augment=mixup"), ("data/augment=mixup", "speech")),
        (("stage=finetune", "data.label_fraction=2"), ("data.label_fraction=2", "at most 1")),
        (("stage=transfer", "pretrain.optimizer.lr=-1"), ("pretrain.optimizer.lr=-1",)),
        (("stage=pretrain", "objective=masked"), ("objective=masked", "backbone=mlp", "backbone=vit")),
        (("stage=pretrain", "loss=focal"), ("loss=focal", "objective=denoise", "loss=mse")),
        (("stage=finetune", "loss=mse"), ("loss=mse", "objective=classification", "loss=cross_entropy")),
        (("stage=finetune", "objective=regression"), ("objective=regression", "data=digits")),
        (("stage=pretrain", "backbone=resnet", "data=vectors"), ("backbone=resnet", "data=vectors", "backbone=mlp")),
        (("stage=pretrain", "experiment=table"), ("data.root", "data.target")),
        (("stage=finetune", "init=nowhere"), ("init=nowhere", "no such folder")),
        (("stage=finetune",), ("no finished pretrain run", "python train.py stage=pretrain experiment=digits")),
        (("stage=evaluate",), ("no finished finetune run", "python train.py stage=finetune experiment=digits")),
        (("stage=evaluate", "run=nowhere"), ("nowhere", "no such folder")),
        (("stage=report", "runs=nowhere"), ("nowhere",)),
        (("stage=finetune", "init=scratch", "data.labels_per_class=900"), ("class 0 has 124", "labels_per_class=900")),
        (("stage=pretrain", "backbone.hidden=[]"), ("backbone.hidden",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_config_mistakes(words: tuple[str, ...], parts: tuple[str, ...], cli):
    outcome = cli(*words)
    refused(outcome, *parts)
    assert not list(outcome.folder.rglob("*"))


def test_an_output_folder_that_cannot_be_written(cli, tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused(cli("stage=pretrain", *FAST, output_dir=tmp_path / "file"), "cannot write", "output_dir=")


WIDE = "a,b,c\n" + "".join(f"{i},{i * 2},{i}\n" for i in range(40))
CELLS = "a,b,y\n" + "".join(f"{i},{i * 2},{'yes' if i % 2 else 'no'}\n" for i in range(40))


@pytest.mark.parametrize(
    ("content", "words", "parts"),
    [
        ("", (), ("is empty",)),
        ("a,b,y\n", (), ("has no rows",)),
        (CELLS.replace("\n3,6", "\n3,six"), (), ("row 4", "column b", "'six' is not a number", "data.categorical")),
        (CELLS, ("data.target=label",), ("no column label", "data.target")),
        (CELLS, ("data.categorical=[A]",), ("no column A", "data.categorical", "a")),
        (CELLS.replace("\n3,6", "\n3,"), (), ("row 4", "column b", "missing", "data.missing=mean")),
        (CELLS.replace("\n3,6", "\n3,inf"), (), ("row 4", "column b", "infinite")),
        (CELLS.replace("\n3,6", "\n3,inf"), ("data.missing=mean",), ("row 4", "column b", "infinite")),
        (CELLS.replace("yes", "no"), (), ("one class",)),
        (CELLS + "1,1,rare\n", (), ("class rare has 1 rows",)),
        (CELLS, ("data.missing=zero",), ("data.missing=zero",)),
        (CELLS, ("objective=regression",), ("row 1", "column y", "not a number")),
        (CELLS, ("objective=multilabel", "data.target=[b]", "data.ignore=[y]"), ("two or more columns",)),
        (WIDE, ("objective=multilabel", "data.target=[a,b]"), ("row 3", "column a", "not 0 or 1")),
        (CELLS, ("objective=multilabel", "data.target=[a,c]"), ("no column c", "data.target")),
        (CELLS, ("data.ignore=[a,b]",), ("no feature column",)),
        (CELLS, ("data.labels_per_class=90",), ("fewer than data.labels_per_class=90",)),
        ("a,b,y\n1,2\n1,2,3,4\n", (), ("row 1: 2 cells, but the header has 3",)),
    ],
)
def test_broken_tables(content: str, words: tuple[str, ...], parts: tuple[str, ...], cli, tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text(content)
    base = ("stage=finetune", "init=scratch", "experiment=table", f"data.root={path}", *FAST)
    outcome = cli(*base, *(() if any(w.startswith("data.target") for w in words) else ("data.target=y",)), *words)
    refused(outcome, *parts)
    assert not list(outcome.folder.rglob("*"))


def test_a_table_that_is_not_there(cli):
    refused(cli("stage=pretrain", "experiment=table", "data.root=no.csv", "data.target=y"), "no.csv", "no such file")


def test_empty_numbers_are_filled_when_asked(cli, tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text(CELLS.replace("\n3,6", "\n3,"))
    words = ("stage=finetune", "init=scratch", "experiment=table", f"data.root={path}", "data.target=y", *FAST)
    assert cli(*words, "data.missing=median").status == 0


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(6):
            Image.fromarray(np.full((8, 8, 3), 40 * index, dtype=np.uint8)).save(
                tmp_path / "photos" / label / f"{index}.png"
            )
    return tmp_path / "photos"


def test_broken_image_folders(cli, photos: Path):
    words = ("stage=pretrain", "experiment=images", f"data.root={photos}", "data.size=8", *FAST)
    (photos / "dog" / "3.png").write_bytes(b"not a picture")
    refused(cli(*words), str(photos / "dog" / "3.png"), "not a readable image")
    complete = (photos / "dog" / "2.png").read_bytes()
    (photos / "dog" / "3.png").write_bytes(complete[: len(complete) // 2])
    refused(cli(*words), str(photos / "dog" / "3.png"))
    for path in (photos / "dog").iterdir():
        path.unlink()
    refused(cli(*words), "two or more", "only cat")
    refused(cli("stage=pretrain", "experiment=images", "data.root=nowhere"), "nowhere", "no such folder")


def test_saved_weights_that_do_not_fit(cli, tmp_path: Path):
    pretrain = cli("stage=pretrain", *FAST)
    base = pretrain.run("pretrain")
    refused(
        cli("stage=finetune", "backbone.hidden=[128,256]"),
        "backbone.hidden is [256, 256] there and [128, 256] here",
    )
    refused(cli("stage=finetune", f"init={base}", "backbone=resnet"), "backbone._target_")
    refused(
        cli("stage=finetune", f"init={base}", "experiment=vectors", "backbone.hidden=[256,256]"),
        str(base),
        "image",
    )
    bare = cli("stage=finetune", f"init={base / 'model'}", *FAST)
    assert bare.status == 0, bare.err

    weights = base / "model" / "model.safetensors"
    complete = weights.read_bytes()
    weights.write_bytes(complete[:-100])
    refused(cli("stage=finetune"), "model.safetensors", "is damaged or was changed")
    weights.write_bytes(complete[:-4] + b"\0\1\2\3")
    refused(cli("stage=finetune"), "model.safetensors", "is damaged or was changed")
    weights.unlink()
    refused(cli("stage=finetune"), "model.safetensors", "missing")


def test_runs_that_are_not_finished(cli):
    pretrain = cli("stage=pretrain", *FAST)
    base = pretrain.run("pretrain")
    record = json.loads((base / "run.json").read_text())
    for status in ("running", "failed", "interrupted"):
        change_run(base, status=status, error="out of luck")
        seen = ("interrupted", "its process has ended") if status == "running" else (status, "out of luck")
        refused(cli("stage=finetune", f"init={base}"), str(base), f"status is {seen[0]}", seen[1])
        refused(cli("stage=finetune"), "no finished pretrain run")
    (base / "run.json").write_text('{"id": 1')
    refused(cli("stage=finetune", f"init={base}"), "run.json", "damaged")
    write_run(base, record)
    refused(cli("stage=evaluate", f"run={base}"), "is a pretrain run", "give a finetune or soup run")


def test_a_run_folder_cannot_make_us_run_foreign_code(cli):
    cli("stage=finetune", "init=scratch", *FAST)
    run = cli("stage=finetune", "init=scratch", *FAST).run("finetune")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("warmstart.strategy.full.Full", "subprocess.Popen"))
    change_run(run)
    refused(cli("stage=evaluate", f"run={run}"), "subprocess.Popen", "trust=[subprocess]")
    for target in (
        "warmstart.strategy.torch.load",
        "warmstart.training.session.torch.load",
        "warmstart.run.folder.json.loads",
    ):
        (run / "config.yaml").write_text(config.replace("warmstart.strategy.full.Full", target))
        change_run(run)
        refused(cli("stage=evaluate", f"run={run}"), target)
    (run / "config.yaml").write_text(config.replace("torch.optim.AdamW", "pytorch_lightning.Trainer"))
    change_run(run)
    refused(cli("stage=evaluate", f"run={run}"), "pytorch_lightning.Trainer")
    (run / "config.yaml").write_text(config)
    change_run(run)
    assert cli("stage=evaluate", f"run={run}").status == 0


def test_predicting_from_a_file_of_another_shape(cli, tmp_path: Path):
    cli("stage=finetune", "init=scratch", *FAST)
    pd.DataFrame(np.ones((2, 3))).to_csv(tmp_path / "narrow.csv", index=False)
    refused(cli("stage=predict", f"input={tmp_path / 'narrow.csv'}"), "3 columns, but 64 are expected")
    refused(cli("stage=predict", f"input={tmp_path / 'no.csv'}"), "no such file")
    (tmp_path / "text.csv").write_text(",".join(["1"] * 63 + ["x"]) + "\n")
    refused(cli("stage=predict", f"input={tmp_path / 'text.csv'}"), "row 1", "'x' is not a number")


def test_a_diverged_run_fails_with_a_message(cli):
    outcome = cli("stage=finetune", "init=scratch", "optimizer.lr=1e30", "trainer.max_epochs=2")
    assert outcome.status == 2
    assert "diverged" in outcome.error
    assert outcome.record("finetune")["status"] == "failed"
    assert "diverged" in outcome.record("finetune")["error"]
    assert "diverged" in (outcome.run("finetune") / "train.log").read_text()


def test_a_bug_keeps_its_traceback_in_the_log_of_the_run(cli, monkeypatch: pytest.MonkeyPatch):
    from warmstart.training.callbacks.curves import Curves

    def broken(self, *args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Curves, "on_train_batch_end", broken)
    outcome = cli("stage=pretrain", *FAST)
    assert outcome.status == 1
    assert "Traceback" in outcome.err
    assert "RuntimeError: a bug" in (outcome.run("pretrain") / "train.log").read_text()
    assert outcome.record("pretrain")["status"] == "failed"


@pytest.mark.parametrize("words", [("trainer.accelerator=gpu",), ("trainer.precision=foo",), ("trainer.profiler=foo",)])
def test_errors_of_lightning_are_reported_in_a_line(words: tuple[str, ...], cli):
    refused(cli("stage=pretrain", *FAST, *words), "trainer")


def test_a_settings_file_of_numbers_that_no_float_holds(cli, tmp_path: Path):
    path = tmp_path / "table.csv"
    for cell, message in (("1e300", "too large for 32-bit"), ("9" * 400, "b")):
        path.write_text(CELLS.replace("\n3,6", f"\n3,{cell}"))
        refused(cli("stage=pretrain", "experiment=table", f"data.root={path}", "data.target=y", *FAST), message)
    frame = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=40), "y": ["a", "b"] * 20})
    frame.to_parquet(tmp_path / "dates.parquet")
    words = ("experiment=table", f"data.root={tmp_path / 'dates.parquet'}", "data.target=y")
    refused(cli("stage=pretrain", *words, *FAST), "column day", "dates")
    path.write_bytes(CELLS.encode("utf-16"))
    refused(cli("stage=pretrain", "experiment=table", f"data.root={path}", "data.target=y", *FAST), "UTF-8")


def test_a_damaged_plan_or_preprocessor(cli, tmp_path: Path):
    (tmp_path / "manifest.json").write_text("[]")
    refused(cli("stage=report", f"runs={tmp_path}"), "manifest.json", "damaged")
    (tmp_path / "manifest.json").write_text('{"metric": 1, "mode": 1, "arms": [], "runs": [{}]}')
    refused(cli("stage=report", f"runs={tmp_path}"), "manifest.json", "damaged")
    base = cli("stage=pretrain", *FAST).run("pretrain")
    (base / "model").rename(tmp_path / "bare")
    state = json.loads((tmp_path / "bare" / "preprocessor.json").read_text())
    (tmp_path / "bare" / "preprocessor.json").write_text(json.dumps({**state, "colour": 1}))
    write_checksums(tmp_path / "bare")
    refused(cli("stage=finetune", f"init={tmp_path / 'bare'}", *FAST), "preprocessor is damaged")


def test_settings_that_a_part_does_not_have_and_runs_of_another_experiment(cli):
    refused(cli("stage=pretrain", "+loss.alpha=1", "loss=huber", *FAST), "huber", "alpha")
    refused(cli("stage=pretrain", "+backbone.colour=1", *FAST), "MLP", "colour")
    cli("stage=pretrain", *FAST)
    refused(cli("stage=finetune", "reinitialize=[nothing.*]", *FAST), "nothing.*", "layers.0.0.weight")
    run = cli("stage=finetune", *FAST).run("finetune")
    refused(cli("stage=evaluate", "experiment=vectors", f"run={run}"), "set experiment=digits")
    (run / "config.yaml").write_text("")
    change_run(run)
    refused(cli("stage=evaluate", f"run={run}"), "config.yaml", "damaged")
