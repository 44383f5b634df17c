"""Baselines: the rows of an arm, and the scores of scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression

from warmstart.core.errors import UserError
from warmstart.data.sources.image.digits import Digits
from warmstart.data.splits import labelled_subset
from warmstart.run.identity import derive_seed
from warmstart.stages import baseline
from warmstart.transfer.arms import arm_config


@pytest.fixture
def fitted(composed, tmp_path: Path):
    """Run a baseline arm of a transfer; its record and scores."""

    def call(arm: str, *words: str, labels: int | float | str = 5, seed: int = 0) -> tuple[dict, np.ndarray | None]:
        config = composed("stage=transfer", *words, f"output_dir={tmp_path}")
        run = baseline.run(arm_config(config, arm, "none", labels, seed))
        scores = run.path / "test_scores.npy"
        return json.loads((run.path / "run.json").read_text()), np.load(scores) if scores.exists() else None

    return call


def test_the_linear_model_is_scikit_learns_on_the_arms_own_rows(fitted):
    record, scores = fitted("linear")
    splits = Digits(0).load("category")
    rows = labelled_subset(splits.train.y, splits.labels, derive_seed(0, "subset"), per_class=5)
    x = [part.x.reshape(len(part.x), -1) for part in (splits.train.take(rows), splits.validation, splits.test)]
    mean, std = splits.train.x.mean(), splits.train.x.std()
    train, validation, test = ((part - mean) / std for part in x)
    models = [LogisticRegression(C=c, max_iter=200).fit(train, splits.train.y[rows]) for c in baseline.STRENGTHS]
    best = max(models, key=lambda model: model.score(validation, splits.validation.y))
    assert record["metrics"]["test/accuracy"] == pytest.approx(best.score(test, splits.test.y), abs=0.005)
    assert scores.mean() == pytest.approx(record["metrics"]["test/accuracy"])
    assert record["status"] == "done"
    assert record["data"]["rows"]["train"] == 50


def test_the_majority_is_the_most_frequent_class(fitted):
    record, _ = fitted("trivial", labels="all")
    splits = Digits(0).load("category")
    most = np.bincount(splits.train.y).argmax()
    assert record["metrics"]["test/accuracy"] == pytest.approx((splits.test.y == most).mean())
    assert record["metrics"]["test_noisy/accuracy"] == record["metrics"]["test_rotated/accuracy"]
    assert record["metrics"]["test_noisy/accuracy"] == record["metrics"]["test/accuracy"]


@pytest.mark.parametrize("target", ["data.target=z", "data.target=[p,q]"])
def test_values_and_several_labels(fitted, tmp_path: Path, target: str):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(z=x @ [1, 2, 3], p=x[:, 0] > 0, q=x[:, 1] > 0)
    table.astype({"p": int, "q": int}).to_csv(tmp_path / "table.csv", index=False)
    ignore, objective = ("[p,q]", "regression") if "z" in target else ("[z]", "multilabel")
    words = ("experiment=table", f"data.root={tmp_path}/table.csv", target, f"data.ignore={ignore}")
    metric = "test/r2" if "z" in target else "test/f1"
    scores = [
        fitted(arm, *words, f"objective={objective}", labels="all")[0]["metrics"][metric]
        for arm in ("trivial", "linear")
    ]
    assert scores[0] < 0.7
    assert scores[1] > 0.9


def test_an_unknown_baseline_is_refused(composed, tmp_path: Path):
    config = composed("stage=transfer", f"output_dir={tmp_path}", "arm.trivial.baseline=median")
    with pytest.raises(UserError, match="baseline=median: give majority or linear"):
        baseline.run(arm_config(config, "trivial", "none", 5, 0))
    assert json.loads(next(tmp_path.rglob("run.json")).read_text())["status"] == "failed"
    assert OmegaConf.load(next(tmp_path.rglob("config.yaml"))).baseline == "median"
