"""stage=baseline: models without a backbone on the rows of an arm: a constant prediction or a linear model."""

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
from warmstart.training.memory import peak_memory_mb, reset_peak_memory
from warmstart.training.record import note_data, runs_folder

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse regularization strengths, selected on validation
KINDS = ("majority", "linear")


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Fit on the labelled rows, select the regularization on validation, and evaluate on the test splits.

    Args:
        config: data, objective and loss of a finetuning config, and `baseline`: majority or linear.
        opened: the run folder to resume; by default, a new one.
    """
    reset_peak_memory()
    started = time.monotonic()
    target = get_object(config.objective._target_).target
    if target in ALIGNED:
        raise UserError(f"baseline={config.baseline} predicts one target per example, not positions: remove it")
    data = components.task_data(config).prepare(load(OmegaConf.to_yaml(components.source_node(config)), target))
    objective = components.build(
        config.objective, backbone=NoBackbone(), spec=data.spec, loss=components.build_loss(config)
    )
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording():
        note_data(run, config, data)
        model, metrics = select(config.baseline, target, objective, data)
        for split in data.test_parts:
            outputs, y = predict(model, *scaled(data, split))
            metrics |= measure(objective, outputs, y, split)
            if split == "test":
                save_scores(run, [objective.scores(outputs, y)])
        cost = {"seconds": time.monotonic() - started, "steps": 0, "examples": data.rows["train"]}
        run.update(metrics=metrics, cost={**cost, "peak_memory_mb": peak_memory_mb()})
    return run


@functools.lru_cache(maxsize=1)
def load(source: str, target: str) -> Splits:
    """Return the splits of a source, given as YAML; cached for the next run in this process."""
    return components.build(OmegaConf.create(source)).load(target)


def select(
    kind: str, target: str, objective: Objective, data: TaskDataModule
) -> tuple[BaseEstimator, dict[str, float]]:
    """Return the fitted model with the best validation metric, and its validation metrics.

    Raises:
        UserError: the kind of baseline is unknown.
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
    """A backbone for objectives of which only the metrics are used."""

    width = 1


class Standardized(BaseEstimator):
    """A regression on standardized targets, since scikit-learn would round targets to the precision of the inputs.

    Args:
        model: predicts standardized targets.
    """

    def __init__(self, model: BaseEstimator):
        self.model = model

    def fit(self, x: Any, y: np.ndarray) -> Standardized:
        """Fit to inputs (N, F) and targets (N, K)."""
        self.center, self.spread = map(np.array, moments(y))
        self.model.fit(x, (y - self.center) / self.spread)
        return self

    def predict(self, x: Any) -> np.ndarray:
        """Return predictions (N, K) in the units of the targets, in double precision."""
        standard = self.model.predict(x).astype(np.float64).reshape(-1, len(self.center))
        return standard * self.spread + self.center


def estimator(kind: str, target: str, strength: float) -> BaseEstimator:
    """Return the scikit-learn model for a kind of target."""
    if target == "value":
        return Standardized(Ridge(alpha=1 / strength) if kind == "linear" else DummyRegressor())
    model = LogisticRegression(C=strength, max_iter=200) if kind == "linear" else DummyClassifier(strategy="prior")
    return OneVsRestClassifier(model) if target == "categories" else model


def scaled(data: TaskDataModule, split: str) -> tuple[Any, np.ndarray]:
    """Return scaled, flat inputs (N, F) and targets."""
    x, y = data.parts[split]
    return data.preprocessor.flat(x), y.numpy()


def predict(model: BaseEstimator, x: Any, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return outputs as those of an objective's head, and targets as a tensor."""
    if isinstance(model, Standardized):
        return torch.from_numpy(model.predict(x)), torch.from_numpy(y)
    p = torch.from_numpy(model.predict_proba(x)).float().clamp(1e-6, 1 - 1e-6)
    return (p.logit() if isinstance(model, OneVsRestClassifier) else p.log()), torch.from_numpy(y)


def measure(objective: Any, outputs: Tensor, y: Tensor, split: str) -> dict[str, float]:
    """Return the objective's metrics by name."""
    return {f"{split}/{name}": float(metric(outputs, y)) for name, metric in objective.metrics().items()}
