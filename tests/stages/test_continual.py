"""Sequential finetuning: heads kept or new, lineage, and measured forgetting."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tests.conftest import FAST

from warmstart.core.errors import CannotBatch
from warmstart.transfer.arms import arm_config
from warmstart.vmap.eligibility import check_config

AGAIN = ("stage=finetune", "forgetting=true", *FAST)
FEW = ("data.labels_per_class=20",)


@pytest.fixture
def base(cli) -> Path:
    return cli("stage=pretrain", *FAST, "feature_rows=0", "snapshots=2", "trainer.max_epochs=2").run("pretrain")


@pytest.fixture
def odd_or_even(tmp_path: Path) -> tuple[str, ...]:
    """Some of the digits as picture files, with other labels."""
    bunch, folder = load_digits(), tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(bunch.images[:200]):
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(folder / f"{number}.png")
    names = [f"{number}.png" for number in range(200)]
    kinds = np.where(bunch.target[:200] % 2, "odd", "even")
    pd.DataFrame({"picture": names, "kind": kinds}).to_csv(folder / "table.csv", index=False)
    own = ("data.image=picture", "data.target=kind", "data.size=8", "data.channels=1")
    return ("experiment=digits", "data=image_table", f"data.root={folder / 'table.csv'}", *own)


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_forgetting_is_the_pretraining_loss_before_and_after(cli, base: Path):
    plain = cli("stage=finetune", *FAST, "optimizer.lr=0.03").record("finetune")
    outcome = cli(*AGAIN, "optimizer.lr=0.03")
    assert outcome.status == 0, outcome.err
    record = outcome.record("finetune")
    found = record["forgetting"]
    assert (found["metric"], found["parent"]) == ("val/loss", base.name)
    assert found["before"] == record_of(base)["metrics"]["val/loss"]
    assert found["after"] > found["before"]
    assert f"forgetting: val/loss of pretrain {base.name} was" in outcome.err
    assert "forgetting" not in plain
    assert record["model_sha256"] == plain["model_sha256"]


def test_weights_that_do_not_change_forget_exactly_nothing(cli, base: Path):
    found = cli(*AGAIN, *FEW, "strategy=linear_probe").record("finetune")["forgetting"]
    assert found["before"] == found["after"]
    early = cli(*AGAIN, *FEW, f"init={base / 'snapshots' / '1'}").record("finetune")["forgetting"]
    assert early["parent"] == base.name
    assert early["before"] > record_of(base)["metrics"]["val/loss"]


def test_the_next_task_gets_a_new_head_and_reports_the_first(cli, base: Path, odd_or_even):
    first = cli("stage=finetune", *FAST, "optimizer.lr=0.01").run("finetune")
    outcome = cli(*AGAIN, *odd_or_even, f"init={first}", "optimizer.lr=0.03")
    assert outcome.status == 0, outcome.err
    record = outcome.record("finetune")
    assert record["transfer"]["head"] == "random"
    assert "the head is initialized randomly" in outcome.err
    assert record["parent"]["id"] == first.name
    assert f"lineage: pretrain {base.name} -> finetune {first.name} -> this run" in outcome.err
    found = record["forgetting"]
    assert (found["metric"], found["parent"]) == ("val/accuracy", first.name)
    assert found["before"] == pytest.approx(record_of(first)["metrics"]["val/accuracy"])
    assert 0 <= found["after"] < found["before"]
    assert f"init=latest is {base}" in cli("stage=finetune", *FAST, *FEW).err

    soup = cli("stage=soup", f"runs={first}", "method=wise").run("soup")
    third = cli(*AGAIN, *odd_or_even, f"init={soup}").record("finetune")
    assert third["forgetting"]["before"] == pytest.approx(record_of(soup)["metrics"]["val/accuracy"])


def test_a_head_for_the_same_labels_goes_on(cli, base: Path):
    first = cli("stage=finetune", *FAST).run("finetune")
    outcome = cli("stage=finetune", *FAST, f"init={first}", "optimizer.lr=1e-9")
    assert outcome.record("finetune")["transfer"]["head"] == "loaded"
    assert f"loaded the head of {first}" in outcome.err
    scores = [record_of(run)["metrics"]["test/accuracy"] for run in (first, outcome.run("finetune"))]
    assert scores[0] == scores[1]


def test_rows_that_the_first_task_was_trained_on_are_not_tested_on_without_a_word(cli, base: Path):
    first = cli("stage=finetune", *FAST).run("finetune")
    outcome = cli("stage=finetune", *FAST, f"init={first}", "data.split_seed=1")
    for run in (first, base):
        assert f"warning: {run} was trained with data.split_seed=0" in outcome.err


def test_a_start_that_is_no_run_has_nothing_to_forget(cli, base: Path, tmp_path: Path):
    bare = shutil.copytree(base / "model", tmp_path / "bare")
    for init in ("scratch", str(bare), f"shuffled:{base}"):
        outcome = cli(*AGAIN, *FEW, f"init={init}")
        assert outcome.status == 0, outcome.err
        assert "forgetting is not measured" in outcome.err
        assert "forgetting" not in outcome.record("finetune")


def test_what_the_first_task_was_must_still_be_there(cli, base: Path, odd_or_even, tmp_path: Path):
    scratch = cli("stage=finetune", "init=scratch", *FAST, *odd_or_even)
    first = scratch.run("finetune")
    table = tmp_path / "pictures" / "table.csv"
    rows = table.read_text()

    def refused(*words: str) -> str:
        outcome = cli(*words)
        assert outcome.status == 2, outcome.err
        assert outcome.runs("finetune") == [first]
        assert len(outcome.error.splitlines()) == 1
        return outcome.error

    table.write_text(rows.replace("0.png,even", "0.png,odd", 1))
    assert f"the data of {first} has changed" in refused(*AGAIN, f"init={first}")
    table.unlink()
    assert str(table) in refused(*AGAIN, f"init={first}")
    table.write_text(rows)
    assert "remove reinitialize" in refused(*AGAIN, f"init={first}", "reinitialize=['*']")
    assert "forgetting=maybe" in refused("stage=finetune", "forgetting=maybe")
    other = ("stage=finetune", f"init={first}", "experiment=vectors")
    assert "is for image data" in refused(*other)
    weights = first / "model" / "head.safetensors"
    shutil.copy(base / "model" / "head.safetensors", weights)
    assert "is damaged or was changed" in refused("stage=finetune", f"init={first}")
    shutil.rmtree(first / "model")
    assert "is missing" in refused("stage=finetune", f"init={first}")


def test_one_text_task_after_another(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    words = {"good": "fine lovely", "bad": "dull awful", "odd": "strange quaint"}
    small = ("backbone=tiny", "data.tokenizer.vocabulary=80", "data.tokenizer.context=16", "trainer.precision=null")

    def task(name: str, labels: list[str]) -> tuple[str, ...]:
        rows = [(f"the film {number % 7} was {words[label]}", label) for number in range(20) for label in labels]
        path = tmp_path / f"{name}.csv"
        pd.DataFrame(rows, columns=["review", "verdict"]).to_csv(path, index=False)
        return ("experiment=text", f"data.root={path}", "data.text=review", "data.target=verdict", *small)

    first = cli("stage=finetune", "init=scratch", *FAST, *task("one", ["good", "bad"]), "optimizer.lr=0.005")
    run = first.run("finetune")
    outcome = cli(*AGAIN, *task("two", ["good", "bad", "odd"]), f"init={run}")
    assert outcome.status == 0, outcome.err
    record = outcome.record("finetune")
    assert (record["transfer"]["head"], record["transfer"]["fraction"]) == ("random", 1.0)
    assert record["forgetting"]["before"] == pytest.approx(record_of(run)["metrics"]["val/accuracy"])


def test_every_arm_of_a_transfer_is_asked_and_none_is_trained_with_others(composed):
    arm = arm_config(composed("stage=transfer", "forgetting=true"), "pretrained", "somewhere", 5, 0)
    with pytest.raises(CannotBatch, match="forgetting=true"):
        check_config(arm)
