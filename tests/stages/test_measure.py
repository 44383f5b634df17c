"""Shifted test splits in every evaluation: separate columns, without effect on the test split."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import FAST, Outcome
from tests.records import write_run

SPLITS = {"test", "test_rotated", "test_noisy"}


def measured(outcome: Outcome, stage: str) -> dict[str, float]:
    assert outcome.status == 0, outcome.err
    return {name: value for name, value in outcome.record(stage)["metrics"].items() if name.startswith("test")}


@pytest.fixture
def finetuned(cli) -> Outcome:
    return cli("stage=finetune", "init=scratch", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=3")


def test_each_shifted_split_is_reported_separately_and_again_by_evaluate(finetuned: Outcome, cli):
    metrics = measured(finetuned, "finetune")
    assert {name.split("/")[0] for name in metrics} == SPLITS
    assert {f"{part}/{name}" for part in SPLITS for name in ("loss", "accuracy")} <= set(metrics)
    assert metrics["test_noisy/accuracy"] < metrics["test/accuracy"]
    assert metrics["test_rotated/accuracy"] < metrics["test/accuracy"]
    folder, record = finetuned.run("finetune"), finetuned.record("finetune")
    assert {record["data"]["rows"][part] for part in SPLITS} == {270}
    scores = np.load(folder / "test_scores.npy")
    assert scores.mean() == pytest.approx(metrics["test/accuracy"])
    assert len(scores) == 270
    with open(folder / "metrics.csv", newline="") as stream:
        logged = {row["name"]: float(row["value"]) for row in csv.DictReader(stream)}
    assert {name: logged[name] for name in metrics} == pytest.approx(metrics)
    tags = EventAccumulator(str(folder)).Reload().Tags()
    assert {"best/test/accuracy", "best/test_rotated/accuracy"} <= set(tags["scalars"])
    assert "test_noisy/accuracy" in finetuned.out
    again = cli("stage=evaluate", "run=latest")
    assert measured(again, "evaluate") == metrics
    assert "test_rotated/loss" in again.out


def test_what_watches_the_test_sees_the_test_split_alone(cli):
    outcome = cli("stage=finetune", "init=scratch", *FAST, "visualization=[confusion_matrix]")
    folder = outcome.run("finetune")
    events = EventAccumulator(str(folder), {"images": 0}).Reload()
    assert len(events.Images("test confusion matrix")) == 1


def test_a_run_without_a_test_has_no_shifted_metrics(cli):
    assert measured(cli("stage=finetune", "init=scratch", *FAST, "test=false"), "finetune") == {}


def test_a_rerun_is_compared_with_a_run_from_before_there_were_shifts(finetuned: Outcome, cli):
    path = finetuned.run("finetune") / "run.json"
    record = json.loads(path.read_text())
    record["metrics"] = {name: value for name, value in record["metrics"].items() if not name.startswith("test_")}
    write_run(path.parent, {**record, "model_sha256": "of another machine"})
    outcome = cli("stage=rerun", f"run={path.parent}")
    assert outcome.status == 0, outcome.err
    assert outcome.record("finetune")["rerun"]["verdict"] == "near"
    assert "test_rotated/accuracy" in measured(outcome, "finetune")


def test_reviews_that_are_not_there_end_a_run_before_it_begins(cli, tmp_path: Path):
    for name in ("train", "validation", "test"):
        pd.DataFrame({"text": ["good", "bad"] * 6, "label": [1, 0] * 6}).to_parquet(tmp_path / f"{name}.parquet")
    words = (f"data.root={tmp_path}", f"data.reviews={tmp_path}/nowhere")
    outcome = cli("stage=finetune", "experiment=sst2", "init=scratch", *words)
    assert outcome.status == 2
    assert outcome.error == f"error: data.reviews={tmp_path}/nowhere: there is no such file or folder"
    assert not outcome.runs("finetune")
