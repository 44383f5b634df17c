"""stage=baseline: what needs no backbone, on the same rows as an arm: the most frequent class, or a linear model."""

from __future__ import annotations

import functools
import time
import warnings
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Objective
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.loader import ALIGNED, moments
from warmstart.run.folder import RunFolder
from warmstart.run.scores import save_scores
from warmstart.training import components
from warmstart.training.checkpoint import is_better
from warmstart.training.memory import forget_peak_memory, peak_memory_mb
from warmstart.training.record import note_data, runs_folder

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse regularization, chosen on validation
KINDS = ("majority", "linear")


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Fit on the labelled rows, choose the regularization on validation, measure on the test splits once.

    Args:
        config: data, objective and loss of a finetuning config, and `baseline`: majority or linear.
        opened: the folder to run in, if not a new one.
    """
    forget_peak_memory()
    started = time.monotonic()
    target = get_object(config.objective._target_).target
    if target in ALIGNED:
        raise UserError(f"baseline={config.baseline} predicts one target per example, not places in it: leave it out")
    data = components.task_data(config).prepare(load(OmegaConf.to_yaml(components.source_node(config)), target))
    objective = components.build(
        config.objective, backbone=NoBackbone(), spec=data.spec, loss=components.build_loss(config)
    )
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording():
        note_data(run, config, data)
        model, metrics = choose(config.baseline, target, objective, data)
        for part in data.test_parts:
            outputs, y = predict(model, *scaled(data, part))
            metrics |= measure(objective, outputs, y, part)
            if part == "test":
                save_scores(run, [objective.scores(outputs, y)])
        cost = {"seconds": time.monotonic() - started, "steps": 0, "examples": data.rows["train"]}
        run.update(metrics=metrics, cost={**cost, "peak_memory_mb": peak_memory_mb()})
    return run


@functools.lru_cache(maxsize=1)
def load(source: str, target: str) -> Splits:
    """The splits of a source, given as yaml, kept for the next run of this process on the same data."""
    return components.build(OmegaConf.create(source)).load(target)


def choose(
    kind: str, target: str, objective: Objective, data: TaskDataModule
) -> tuple[BaseEstimator, dict[str, float]]:
    """The fitted model that validates best, and its validation metrics.

    Raises:
        UserError: there is no such baseline.
    """
    if kind not in KINDS:
        raise UserError(f"baseline={kind}: give {' or '.join(KINDS)}")
    name, mode = objective.monitor
    best: tuple[BaseEstimator, dict[str, float]] | None = None
    (x, y), held_out = scaled(data, "train"), scaled(data, "validation")
    for strength in STRENGTHS if kind == "linear" else STRENGTHS[:1]:
        model = estimator(kind, target, strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)  # a label that no row has
            model.fit(x, y)
        metrics = measure(objective, *predict(model, *held_out), "val")
        if best is None or is_better(metrics[name], best[1][name], mode):
            best = model, metrics
    return best


class NoBackbone(Backbone):
    """What an objective gets that is asked for its metrics alone."""

    width = 1


class Standardized(BaseEstimator):
    """A regression of standardised targets, which scikit-learn would round to the precision of the inputs.

    Args:
        model: what predicts targets in standard deviations from their mean.
    """

    def __init__(self, model: BaseEstimator):
        self.model = model

    def fit(self, x: Any, y: np.ndarray) -> Standardized:
        """Fit inputs (N, F) and targets (N, K)."""
        self.center, self.spread = map(np.array, moments(y))
        self.model.fit(x, (y - self.center) / self.spread)
        return self

    def predict(self, x: Any) -> np.ndarray:
        """Values (N, K) in the units of the targets, in double precision."""
        standard = self.model.predict(x).astype(np.float64).reshape(-1, len(self.center))
        return standard * self.spread + self.center


def estimator(kind: str, target: str, strength: float) -> BaseEstimator:
    """The scikit-learn model for a kind of target."""
    if target == "value":
        return Standardized(Ridge(alpha=1 / strength) if kind == "linear" else DummyRegressor())
    model = LogisticRegression(C=strength, max_iter=200) if kind == "linear" else DummyClassifier(strategy="prior")
    return OneVsRestClassifier(model) if target == "categories" else model


def scaled(data: TaskDataModule, part: str) -> tuple[Any, np.ndarray]:
    """Inputs (N, F), scaled as a backbone gets them or as the preprocessor flattens them, and targets."""
    x, y = data.parts[part]
    return data.preprocessor.flat(x), y.numpy()


def predict(model: BaseEstimator, x: Any, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Outputs as an objective's head gives them, and targets as a tensor."""
    if isinstance(model, Standardized):
        return torch.from_numpy(model.predict(x)), torch.from_numpy(y)
    p = torch.from_numpy(model.predict_proba(x)).float().clamp(1e-6, 1 - 1e-6)
    return (p.logit() if isinstance(model, OneVsRestClassifier) else p.log()), torch.from_numpy(y)


def measure(objective: Any, outputs: Tensor, y: Tensor, part: str) -> dict[str, float]:
    """The objective's metrics by their names."""
    return {f"{part}/{name}": float(metric(outputs, y)) for name, metric in objective.metrics().items()}
