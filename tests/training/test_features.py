"""Feature metrics at every validation: a collapse is reported once, and training is not affected."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.conftest import FAST

from warmstart.backbone.mlp import MLP
from warmstart.core.batch import Features
from warmstart.core.protocols import Preprocessor
from warmstart.data.storage.ragged import Ragged
from warmstart.training.frozen import Frozen
from warmstart.training.visualization.features import effective_rank, spread, vote

LOGGED = {"val/feature_rank", "val/feature_std", "val/knn_accuracy"}
STEPWISE = (
    "stage=pretrain",
    "visualization=[]",
    "trainer.check_val_every_n_epoch=null",
    "trainer.val_check_interval=7",
)


def test_neighbours_vote_by_their_similarity():
    torch.manual_seed(0)
    centres = torch.eye(4, 16) * 5
    classes, wanted = torch.randint(0, 4, (200,)), torch.randint(0, 4, (50,))
    known, features = centres[classes] + torch.randn(200, 16), centres[wanted] + torch.randn(50, 16)
    assert (vote(known, classes, features) == wanted).float().mean() > 0.95
    few = torch.tensor(
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    )  # two votes at a right angle count less than one that agrees
    assert vote(few, torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.1]])).item() == 0


class Sum(torch.nn.Module):
    """A backbone whose feature is the sum of a row."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, mask):
        return SimpleNamespace(pooled=(x.sum(1, keepdim=True) * self.weight))


def test_features_of_variable_length_rows_are_in_the_order_of_the_rows():
    lengths = np.array([3, 9, 1, 5])
    x = Ragged(np.repeat([1, 2, 3, 4], lengths), np.cumsum([0, *lengths]), lengths, 0, 9)
    frozen = Frozen(Sum(), None, Preprocessor())
    frozen.batch_size = 2
    assert frozen.features(x)[:, 0].tolist() == [3, 18, 3, 20]


def test_rank_and_spread_of_features_whose_are_known():
    torch.manual_seed(0)
    everywhere = torch.randn(2000, 8)
    assert effective_rank(everywhere) == pytest.approx(8, rel=0.01)
    assert spread(everywhere) == pytest.approx(1, rel=0.05)
    plane = torch.randn(2000, 2) @ torch.randn(2, 8)
    assert effective_rank(plane) <= 2
    alike = torch.ones(2000, 8) + 1e-4 * everywhere
    assert effective_rank(alike) == pytest.approx(1, abs=0.01)
    assert spread(alike) < 0.001
    assert (effective_rank(torch.zeros(5, 8)), spread(torch.zeros(5, 8))) == (1, 0)


def test_logged_at_every_validation_and_training_is_what_it_is_without(cli):
    words = (*STEPWISE, "trainer.max_epochs=2", "backbone.dropout=0.1", "trainer.deterministic=true")
    watched, alone = cli(*words, "feature_rows=100"), cli(*words, "feature_rows=0")
    assert watched.status == alone.status == 0, watched.err + alone.err
    first, second = watched.runs("pretrain")
    records = [json.loads((run / "run.json").read_text()) for run in (first, second)]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]
    assert set(records[0]["metrics"]) - set(records[1]["metrics"]) == LOGGED
    assert 0.3 < records[0]["metrics"]["val/knn_accuracy"] <= 1
    with open(first / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = {name: [row["step"] for row in rows if row["name"] == name] for name in {*LOGGED, "val/loss"}}
    assert len(steps["val/loss"]) >= 5
    assert all(steps[name] == ["0", *steps["val/loss"]] for name in LOGGED)


def test_classes_are_looked_at_and_not_trained_on(cli):
    outcome = cli("stage=pretrain", "experiment=vectors", "data.rows=400", *FAST)
    assert set(outcome.record("pretrain")["metrics"]) & LOGGED == LOGGED - {"val/knn_accuracy"}


def test_a_collapse_is_reported_once(cli, monkeypatch: pytest.MonkeyPatch):
    original = MLP.forward

    def constant(self: MLP, *args) -> Features:
        features = original(self, *args)
        return Features(features.tokens, features.pooled * 0 + 1)

    monkeypatch.setattr(MLP, "forward", constant)
    outcome = cli(*STEPWISE, "trainer.max_epochs=1")
    assert outcome.status == 0, outcome.err
    assert outcome.err.count("features have collapsed at step 7") == 1
    assert outcome.err.count("features have collapsed") == 1
