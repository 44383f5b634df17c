"""Regression at any offset and scale: metrics, scores and predictions agree with scikit-learn."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torch import Tensor, nn

from warmstart.baseline.linear import STRENGTHS
from warmstart.core import protocols
from warmstart.core.batch import Batch, Features, Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.loader import GatherLoader, moments
from warmstart.data.preprocess.vector import Preprocessor
from warmstart.data.transforms.augment import Augment
from warmstart.loss.mse import mse
from warmstart.objective.regression import MAE, MSE, R2, Regression
from warmstart.stages import baseline
from warmstart.strategy.full import Full
from warmstart.training.evaluation import evaluate, measure
from warmstart.training.modules import FinetuneModule
from warmstart.training.schedule import constant
from warmstart.training.trainer import build_trainer, fit
from warmstart.transfer.arms import arm_config

SAMPLES = [
    pytest.param([1.7e9], [10.0], id="seconds of an epoch"),
    pytest.param([0.0], [1e-3], id="small"),
    pytest.param([311030.0], [10.0], id="offset"),
    pytest.param([1e25], [1e24], id="large"),
    pytest.param([-5e-9], [1e-12], id="tiny"),
    pytest.param([1.7e9, 0.0, -3e12], [10.0, 1e-3, 0.5], id="three targets"),
]
TRAINER = OmegaConf.create({"_target_": "pytorch_lightning.Trainer", "max_epochs": 12, "accelerator": "cpu"})


class Line(protocols.Backbone, nn.Module):
    """One layer."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 8)

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        pooled = self.layer(x.to(self.layer.weight.dtype))
        return Features(pooled[:, None], pooled)

    def depths(self) -> dict[str, int]:
        return {"layer": 0}


class Given:
    """Rows whose targets have these means and standard deviations, in double precision."""

    modality: ClassVar = "vector"
    target_kinds: ClassVar = frozenset({"value"})

    def __init__(self, center: list[float], spread: list[float]):
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((200, 3)).astype(np.float32)
        standard = self.x.astype(np.float64) @ rng.standard_normal((3, len(center)))
        self.y = np.array(center) + np.array(spread) * (standard + 0.3 * rng.standard_normal(standard.shape))
        self.labels = tuple(f"target {number}" for number in range(len(center)))

    def load(self, target: str | None) -> Splits:
        parts = (slice(0, 120), slice(120, 150), slice(150, 200))
        return Splits(*(Rows(self.x[part], self.y[part]) for part in parts), labels=self.labels)

    def preprocessor(self) -> Preprocessor:
        return Preprocessor()


def finetuned(source: Given, folder: Path, standardize: bool = True, **settings) -> tuple[TaskDataModule, dict, dict]:
    """The data, the metrics that were measured, and what was predicted for the test rows, by way of JSON."""
    data = TaskDataModule(source, "value", 20, 0).prepare()
    backbone = Line()
    objective = Regression(backbone, data.spec, mse, standardize)
    objective.fit(data.parts["train"][1])
    adam = functools.partial(torch.optim.Adam, lr=0.02)
    module = FinetuneModule(backbone, objective, Full(), adam, constant, Augment(data.preprocessor), 0)
    trainer = build_trainer(OmegaConf.merge(TRAINER, settings), folder, None, [])
    fit(trainer, module, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics |= measure(trainer, module, data)
    module.spec = data.spec
    answers = evaluate(module, trainer, GatherLoader(*data.parts["test"], 32), module.predict_step)
    lines = [json.loads(json.dumps(line)) for batch in answers for line in batch]
    predicted = np.array([[line[label] for label in source.labels] for line in lines])
    scores = torch.cat(module.test_scores).numpy()
    return data, metrics, {"predicted": predicted, "scores": scores}


@pytest.mark.parametrize(("center", "spread"), SAMPLES)
def test_metrics_are_those_of_scikit_learn(center: list[float], spread: list[float], tmp_path: Path):
    source = Given(center, spread)
    _, metrics, found = finetuned(source, tmp_path)
    y, predicted = source.y[150:], found["predicted"]
    assert metrics["test/mae"] == pytest.approx(mean_absolute_error(y, predicted), rel=1e-6)
    assert metrics["test/mse"] == pytest.approx(mean_squared_error(y, predicted), rel=1e-6)
    assert metrics["test/r2"] == pytest.approx(r2_score(y, predicted), rel=1e-6)
    assert metrics["test/r2"] > 0.7  # learned from targets that are still apart
    assert found["scores"] == pytest.approx(np.abs(y - predicted).mean(1), rel=1e-9)
    standard = np.square((y - predicted) / source.y[:120].std(0)).mean()
    assert metrics["test/loss"] == pytest.approx(standard, rel=1e-4)


def test_an_offset_and_a_scale_change_nothing_of_the_training(tmp_path: Path):
    plain, moved = (finetuned(Given(*facts), tmp_path)[1] for facts in (([0.0], [1.0]), ([1.7e9], [10.0])))
    for name in ("train/loss", "val/loss", "val/r2", "test/r2"):
        assert moved[name] == pytest.approx(plain[name], rel=1e-4)
    assert moved["test/mae"] == pytest.approx(10 * plain["test/mae"], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_targets_stay_exact_under_every_precision(precision: str, tmp_path: Path):
    source = Given([1.7e9], [10.0])
    _, metrics, found = finetuned(source, tmp_path, precision=precision)
    y, predicted = source.y[150:], found["predicted"]
    assert metrics["test/r2"] == pytest.approx(r2_score(y, predicted), rel=1e-6)
    assert metrics["test/mae"] == pytest.approx(mean_absolute_error(y, predicted), rel=1e-6)
    assert metrics["test/r2"] > 0.7


def test_a_constant_target_is_scored_as_scikit_learn_defines_it(tmp_path: Path):
    source = Given([5.0, 0.0], [0.0, 1.0])
    data, metrics, found = finetuned(source, tmp_path)
    assert data.spec.spread[0] == 1.0
    assert metrics["test/r2"] == pytest.approx(r2_score(source.y[150:], found["predicted"]), rel=1e-6)
    y = torch.full((6, 1), 0.1, dtype=torch.float64)  # of which six summed and divided are not 0.1
    for outputs, wanted in ((y, 1.0), (y + 0.01, 0.0)):
        assert float(R2(1)(outputs, y)) == wanted == r2_score(np.full(6, 0.5), np.full(6, 0.5) + (1 - wanted))
    assert moments(np.full((6, 1), 0.1)) == ((0.1,), (1.0,))


def test_batches_of_all_sizes_add_up():
    rng = np.random.default_rng(0)
    y = 311030 + 10 * rng.standard_normal((50, 2))
    outputs = 311030 + 10 * rng.standard_normal((50, 2))
    metrics = {"mae": MAE(2), "mse": MSE(2), "r2": R2(2)}
    for start, stop in ((0, 1), (1, 8), (8, 9), (9, 50)):
        for metric in metrics.values():
            metric.update(torch.from_numpy(outputs[start:stop]), torch.from_numpy(y[start:stop]))
    for name, function in (("mae", mean_absolute_error), ("mse", mean_squared_error), ("r2", r2_score)):
        assert float(metrics[name].compute()) == pytest.approx(function(y, outputs), rel=1e-9)
        metrics[name].reset()
        assert float(metrics[name](torch.from_numpy(outputs), torch.from_numpy(y))) == pytest.approx(
            function(y, outputs), rel=1e-9
        )
    assert r2_score(y, outputs) < 0


def test_r2_of_a_single_row_is_refused():
    with pytest.raises(UserError, match="two or more held-out rows"):
        R2(1)(torch.zeros(1, 1), torch.zeros(1, 1))


def test_targets_that_cannot_be_computed_with_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="too large for a loss in its own units"):
        finetuned(Given([1e25], [1e24]), tmp_path, standardize=False)
    for y in ([[1.0], [np.inf]], [[1.0], [np.nan]]):
        with pytest.raises(UserError, match="not all finite"):
            moments(np.array(y))
    assert moments(np.array([[1e-200], [3e-200]]))[1] == pytest.approx((1e-200,))
    assert moments(np.array([[1e200], [3e200]]))[1] == pytest.approx((1e200,))


def test_the_units_go_with_a_head_to_other_data():
    spec = Spec("vector", (3,), ("a",), (1.7e9,), (10.0,))
    first, second = Regression(Line(), spec, mse), Regression(Line(), Spec("vector", (3,), ("a",), (0.0,), (1.0,)), mse)
    second.load_state_dict(first.state_dict())
    batch = Batch(torch.randn(5, 3), 1.7e9 + torch.randn(5, 1, dtype=torch.float64))
    assert torch.equal(first.step(Line(), batch).outputs, second.step(Line(), batch).outputs)
    half = Regression(Line(), spec, mse).bfloat16()
    assert (half.center.item(), half.spread.item(), half.center.dtype) == (1.7e9, 10.0, torch.float64)
    assert next(half.head.parameters()).dtype == torch.bfloat16


def test_the_linear_baseline_at_an_offset(composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = Given([1.7e9], [10.0])
    x, y = source.x, source.y
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y[:, 0]}).to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.setattr("warmstart.data.sources.table.Table.load", lambda self, target: source.load(target))
    monkeypatch.setattr("warmstart.data.sources.table.Table.preprocessor", lambda self: Preprocessor())
    config = composed(
        "stage=transfer",
        "experiment=table",
        f"data.root={tmp_path / 't.csv'}",
        "data.target=y",
        "objective=regression",
        f"output_dir={tmp_path}",
    )
    scores = {}
    for arm in ("linear", "trivial"):
        run = baseline.run(arm_config(config, arm, "none", "all", 0))
        scores[arm] = json.loads((run.path / "run.json").read_text())["metrics"]
        saved = np.load(run.path / "test_scores.npy")
        assert saved.mean() == pytest.approx(scores[arm]["test/mae"], rel=1e-6)
    scaled = (x - x[:120].mean(0)) / x[:120].std(0)
    models = [Ridge(alpha=1 / c).fit(scaled[:120].astype(float), y[:120]) for c in STRENGTHS]
    best = min(models, key=lambda model: mean_absolute_error(y[120:150], model.predict(scaled[120:150].astype(float))))
    predicted = best.predict(scaled[150:].astype(float))
    assert scores["linear"]["test/r2"] == pytest.approx(r2_score(y[150:], predicted), rel=1e-4)
    assert scores["linear"]["test/mae"] == pytest.approx(mean_absolute_error(y[150:], predicted), rel=1e-4)
    mean = np.full_like(y[150:], y[:120].mean())
    assert scores["trivial"]["test/r2"] == pytest.approx(r2_score(y[150:], mean), rel=1e-4)
