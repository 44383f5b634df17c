"""A linear model on the raw inputs."""

from __future__ import annotations

from collections.abc import Iterator

from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from warmstart.baseline.estimator import Estimator
from warmstart.core.protocols import Baseline

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse regularization strengths


def linear(target: str, strength: float) -> BaseEstimator:
    """Return a linear model for a kind of target, with an inverse regularization strength."""
    if target == "value":
        return Ridge(alpha=1 / strength)
    model = LogisticRegression(C=strength, max_iter=200)
    return OneVsRestClassifier(model) if target == "categories" else model


class Linear(Baseline):
    """Logistic regression, or ridge regression of values, on the scaled inputs."""

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Estimator]:
        for strength in STRENGTHS:
            yield Estimator(linear(target, strength), target, outputs)
