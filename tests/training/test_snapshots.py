"""Snapshots: their steps, and the weights of these steps."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from safetensors.torch import load_file

from warmstart.core.errors import UserError
from warmstart.training.callbacks.snapshots import geometric_steps


def test_steps_are_geometric_and_different():
    assert geometric_steps(4, 10_000) == [10, 100, 1000, 10_000]
    assert geometric_steps(5, 6) == [1, 2, 3, 4, 6]
    assert geometric_steps(3, 3) == [1, 2, 3]
    with pytest.raises(UserError, match="only 2 steps"):
        geometric_steps(3, 2)


def test_a_snapshot_is_what_a_shorter_run_would_have_and_changes_nothing(cli):
    words = ("stage=pretrain", "visualization=[]", "scheduler=constant", "trainer.check_val_every_n_epoch=1")
    watched = cli(*words, "trainer.max_epochs=3", "snapshots=2")
    assert watched.status == 0, watched.err
    folder = watched.run("pretrain")
    (_, last) = json.loads((folder / "run.json").read_text())["snapshots"]
    plain = cli(*words, "trainer.max_epochs=3").run("pretrain")
    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (folder, plain))
    snapshot = load_file(folder / "snapshots" / "2" / "model.safetensors")
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor)
        assert torch.equal(snapshot[name], tensor)  # the last epoch validated best
    assert last["step"] == 60
    assert last["val/loss"] == pytest.approx(
        json.loads((plain / "run.json").read_text())["metrics"]["val/loss"], rel=1e-4
    )


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.precision=bf16-mixed", "trainer.limit_val_batches=2"),
        ("trainer.precision=bf16-mixed", "trainer.limit_val_batches=0.5", "trainer.check_val_every_n_epoch=2"),
        ("objective=byol", "data/augment=shift", "trainer.limit_val_batches=2"),
    ],
    ids=["precision and limit", "before the first validation", "byol"],
)
def test_a_snapshot_is_validated_as_its_step_is(words: tuple[str, ...], cli):
    own = ("stage=pretrain", "visualization=[]", "scheduler=constant", "data.batch_size=64", "trainer.max_epochs=2")
    run = cli(*own, "snapshots=2", "feature_rows=50", *words).run("pretrain")
    record = json.loads((run / "run.json").read_text())
    with open(run / "metrics.csv", newline="") as stream:
        losses = [float(row["value"]) for row in csv.DictReader(stream) if row["name"] == "val/loss"]
    assert [one["step"] for one in record["snapshots"]] == [6, 40]
    assert record["snapshots"][-1]["val/loss"] == pytest.approx(losses[-1], rel=1e-6)
    assert record["snapshots"][0]["val/loss"] > losses[-1]
