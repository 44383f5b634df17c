"""Baselines: the rows of an arm, and the scores of scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from tests.records import change_run

from warmstart.baseline.estimator import Estimator
from warmstart.baseline.linear import STRENGTHS
from warmstart.baseline.mfcc import MFCC
from warmstart.baseline.patches import Patches
from warmstart.baseline.tfidf import TfIdf
from warmstart.data.preprocess import image
from warmstart.data.sources.image.digits import Digits
from warmstart.data.splits import labelled_subset
from warmstart.run.identity import derive_seed
from warmstart.stages import baseline, finetune
from warmstart.transfer.arms import arm_config, with_start
from warmstart.transfer.baselines import with_fitting_baselines


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
    models = [LogisticRegression(C=c, max_iter=200).fit(train, splits.train.y[rows]) for c in STRENGTHS]
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


def test_trees_take_categories_and_missing_values(fitted, tmp_path: Path):
    rng = np.random.default_rng(0)
    names = rng.choice(["red", "green", "blue"], 400)
    number = rng.normal(size=400)
    table = pd.DataFrame(
        {"color": names, "a": np.where(rng.random(400) < 0.1, np.nan, number), "b": rng.normal(size=400)}
    )
    table["y"] = np.where((names == "red") ^ (number > 0), "yes", "no")
    table.to_csv(tmp_path / "table.csv", index=False)
    words = ("experiment=table", f"data.root={tmp_path}/table.csv", "data.target=y", "data.missing=mean")
    found = {
        (arm, labels): fitted(arm, *words, "data.categorical=[color]", labels=labels)[0]["metrics"]["test/accuracy"]
        for arm in ("linear", "trees")
        for labels in (20, "all")
    }
    assert found["linear", "all"] < 0.7
    assert found["trees", "all"] > 0.85  # 280 rows: gradient boosting is tried too
    assert found["trees", 20] > found["linear", 20]


def test_tfidf_has_the_ngrams_of_both_texts_of_a_pair():
    x = pd.DataFrame({"text": ["a good film", "a bad film"] * 5, "pair": ["yes", "no"] * 5})
    baseline = TfIdf()
    baseline.fit(None, x)
    inputs = baseline.inputs(None, x, None)
    for model in baseline.models("category", 2, 10, 0):
        assert model.fit(inputs[:6], np.array([1, 0] * 3)).outputs(inputs).argmax(1).tolist() == [1, 0] * 5
    for model in baseline.models("value", 1, 10, 0):
        values = model.fit(inputs[:6], np.array([[1e9 + 1], [1e9]] * 3)).outputs(inputs)
        assert (values[::2] > values[1::2]).all()


def test_cepstra_tell_two_tones_apart():
    times = np.arange(4000) / 8000
    waves = [np.sin(2 * np.pi * (300, 1500)[row % 2] * times).astype(np.float32) for row in range(8)]
    x = pd.DataFrame({"audio": waves, "rate": 8000, "file": "tone"})
    baseline = MFCC(segments=1)
    baseline.fit(None, x)
    inputs = baseline.inputs(None, x, None)
    assert inputs.shape == (8, 40)
    assert baseline.frames.rate == 8000
    for model in baseline.models("category", 2, 4, 0):
        assert model.fit(inputs[:4], np.array([0, 1] * 2)).outputs(inputs).argmax(1).tolist() == [0, 1] * 4


def test_patches_tell_textures_apart_that_have_the_same_pixels():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 255, (40, 1, 16, 16), dtype=np.uint8)
    x[1::2] = np.sort(x[1::2], axis=3)
    preprocessor = image.Preprocessor()
    preprocessor.fit(x)
    baseline = Patches(patches=16)
    baseline.fit(preprocessor, x)
    inputs = baseline.inputs(preprocessor, x, preprocessor.encode(x))
    assert inputs.shape == (40, 8 * 16)
    for model in baseline.models("category", 2, 20, 0):
        assert (model.fit(inputs[:20], np.arange(20) % 2).outputs(inputs).argmax(1).numpy() == np.arange(40) % 2).all()
    assert "at least 16 x 16 pixels, and these have 8 x 8" in baseline.unsupported(x[..., :8, :8])


def test_a_class_without_a_training_row_is_never_predicted():
    x, y = np.eye(4), np.array([0, 2, 0, 2])
    outputs = Estimator(LogisticRegression(), "category", 3).fit(x, y).outputs(x)
    assert outputs.shape == (4, 3)
    assert outputs.argmax(1).tolist() == y.tolist()


@pytest.fixture
def tuned(composed, tmp_path: Path):
    """A run that was finetuned on the digits, from random weights."""
    words = ("stage=finetune", "init=scratch", "visualization=[]", "logger=[]", "trainer.max_epochs=2")
    return finetune.run(composed(*words, f"output_dir={tmp_path}/tuned"))


def test_the_initial_weights_without_training(composed, fitted, tuned, tmp_path: Path):
    start = f"transfer.start={tuned.path}"
    config = with_start(composed("stage=transfer", start, f"output_dir={tmp_path}"))
    runs = {arm: baseline.run(arm_config(config, arm, "none", 5, 1)) for arm in ("zero_shot", "knn")}
    found = {arm: run.record["metrics"] for arm, run in runs.items()}
    for split in ("test", "test_noisy"):
        assert found["zero_shot"][f"{split}/accuracy"] == pytest.approx(tuned.record["metrics"][f"{split}/accuracy"])
    assert runs["knn"].record["parent"]["id"] == tuned.record["id"]
    assert found["knn"]["test/accuracy"] > 0.5
    saved = {path: path.read_bytes() for path in (tuned.path / "model").iterdir()}
    baseline.Shared.last = None
    other = baseline.run(arm_config(config, "knn", "none", 5, 1))
    assert other.record["metrics"] == found["knn"]
    again = baseline.run(arm_config(config, "knn", "none", 5, 1))  # with the features of the run before
    assert again.record["metrics"] == found["knn"]
    assert {path: path.read_bytes() for path in (tuned.path / "model").iterdir()} == saved


def test_arms_that_do_not_fit_are_removed_with_the_reason(composed, tuned, capsys: pytest.CaptureFixture):
    splits = Digits(0).load("category")
    config = with_fitting_baselines(composed("stage=transfer"), splits)
    assert list(config.transfer.arms)[5:] == ["trivial", "linear", "trees", "knn"]
    assert config.transfer.budgets.steps == config.transfer.arms
    said = " ".join(capsys.readouterr().err.split())
    for reason in (
        "tfidf (takes text, not image)",
        "patches (takes images of at least 16 x 16",
        "zero_shot (the pretr",
    ):
        assert reason in said
    started = with_start(composed("stage=transfer", f"transfer.start={tuned.path}"))
    assert list(with_fitting_baselines(started, splits).transfer.arms)[5:] == [
        *("trivial", "linear", "trees", "knn", "zero_shot")
    ]
    splits.labels = tuple("abcdefghij")
    with_fitting_baselines(started, splits)
    assert "for other labels (0, 1, 2, 3 and 6 more; here a, b, c, d and 6 more)" in " ".join(
        capsys.readouterr().err.split()
    )


def test_an_arm_that_is_named_and_does_not_fit_is_refused(command):
    outcome = command("stage=transfer", "transfer.arms=[scratch,tfidf]")
    assert outcome.status == 2
    assert "transfer.arms: tfidf takes text, not image: remove it" in " ".join(outcome.error.split())
    assert not outcome.folder.exists()


def test_a_baseline_that_cannot_be_used_is_refused(cli):
    for words, message in (
        (("arm.trivial.baseline=median",), "choose a component with baseline@arm.trivial.baseline=median"),
        (("+arm.x={baseline: linear}",), "choose a component with baseline@arm.x.baseline=linear"),
        (("baseline@arm.linear.baseline=median",), "median does not exist"),
        (("arm.trees.baseline.trees=0",), "baseline.trees=0: must be a whole number above 0"),
        (("+arm.linear.init=scratch",), "arm.linear.init=scratch: baseline=linear uses no initial weights"),
        (("+baseline@arm.mine.baseline=knn", "transfer.arms=[mine]"), "add +arm.mine.init=pretrained"),
    ):
        outcome = cli("stage=transfer", *words)
        assert outcome.status == 2, words
        assert message in " ".join(outcome.error.split()), outcome.error
        assert not outcome.folder.exists()


def test_a_resumed_transfer_runs_its_baselines(cli):
    words = ("transfer.arms=[trivial,knn]", "transfer.labels=[1]", "transfer.seeds=2", "transfer.budgets.converged=[]")
    outcome = cli("stage=transfer", *words, "pretrain.trainer.max_epochs=1")
    assert outcome.status == 0, outcome.err
    folder = outcome.run("transfer")
    before = json.loads((folder / "report.json").read_text())
    change_run(folder / "runs" / "knn-1-seed1", status="running")
    resumed = cli("stage=transfer", f"resume={folder}")
    assert resumed.status == 0, resumed.err
    assert json.loads((folder / "report.json").read_text())["table"] == before["table"]
