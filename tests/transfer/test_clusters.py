"""A transfer saves the clusters of its test rows, reports those that are also in train, and pretrains without them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warmstart.data.sources.table import Table
from warmstart.report.runs import read_transfer

SMALL = (
    *("transfer.labels=[2]", "transfer.seeds=2", "transfer.arms=[scratch,trivial]", "transfer.budgets.converged=[]"),
    *("trainer.max_steps=2", "trainer.val_check_interval=2"),
)


def test_clusters_of_test_rows_are_saved_and_those_in_train_are_reported(tmp_path: Path, cli: Callable):
    generator = np.random.default_rng(0)
    rows = {"x": generator.random(60), "y": ["u", "v"] * 30, "who": [f"p{row // 2 % 10}" for row in range(60)]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    words = ("experiment=table", f"data.root={tmp_path / 't.csv'}", "data.target=y", "data.cluster=who")
    outcome = cli("stage=transfer", *words, "data.split=row", *SMALL)
    assert outcome.status == 0, outcome.err
    splits = Table(str(tmp_path / "t.csv"), "y", cluster="who", split="row").load("category")
    shared = len(set(splits.train.cluster) & set(splits.test.cluster))
    noted = json.loads((outcome.run("transfer") / "run.json").read_text())["data"]["clusters"]
    assert noted["shared"] == shared
    assert f"{shared} of {noted['test']} clusters of the test split are also in train" in " ".join(outcome.err.split())
    transfer = read_transfer(outcome.run("transfer"))
    assert list(transfer.clusters) == list(splits.test.cluster)
    assert len(transfer.scores(transfer.runs[0])) == len(transfer.clusters)


@pytest.mark.quick
@pytest.mark.parametrize(
    "words",
    [
        ("experiment=speech", "data.cluster=speaker"),
        ("experiment=recordings", "data.root=x", "data.cluster=who"),
        ("experiment=table", "data.root=x", "data.target=y", "data.cluster=who"),
        ("experiment=text", "data.root=x", "data.text=t", "data.target=y", "data.cluster=who"),
    ],
    ids=lambda words: words[0],
)
def test_the_pretraining_excludes_the_same_test_clusters(words: tuple[str, ...], composed: Callable):
    config = composed("stage=transfer", *words, "data.test_clusters=2/3")
    assert config.pretrain.data.test_clusters == "2/3"
    assert config.pretrain.data.cluster == config.data.cluster
    assert config.pretrain.data.split == config.data.split
