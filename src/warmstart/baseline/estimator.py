"""Scikit-learn estimators with the outputs of an objective's head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_regressor
from torch import Tensor

from warmstart.data.loader import moments

SMALLEST = 1e-6  # probability, whose logarithm is finite


class Estimator:
    """A scikit-learn estimator for a kind of target.

    Args:
        estimator: for classes and labels, a classifier with probabilities (N, C), or a regressor, which is fitted to
            indicators (N, C); for values, a regressor, which is fitted to standardized targets, since scikit-learn
            would round targets to the precision of the inputs.
        target: category, categories or value.
        outputs: number of classes, labels or values.
    """

    def __init__(self, estimator: BaseEstimator, target: str, outputs: int):
        self.estimator, self.target, self.number = estimator, target, outputs

    def fit(self, x: Any, y: np.ndarray) -> Estimator:
        """Fit to inputs (N, F) and class numbers (N,), labels (N, L) or values (N, K)."""
        if self.target == "value":
            self.center, self.spread = map(np.array, moments(y))
            y = (y - self.center) / self.spread
        elif self.target == "category" and is_regressor(self.estimator):
            y = np.eye(self.number)[y]
        self.estimator.fit(x, y)
        return self

    def outputs(self, x: Any) -> Tensor:
        """Return log-probabilities of classes (N, C), logits of labels (N, L), or values in their units (N, K)."""
        if self.target == "value":
            standard = self.estimator.predict(x).astype(np.float64).reshape(-1, self.number)
            return torch.from_numpy(standard * self.spread + self.center)
        p = torch.from_numpy(self._probabilities(x)).float().clamp(SMALLEST, 1 - SMALLEST)
        return p.logit() if self.target == "categories" else p.log()

    def _probabilities(self, x: Any) -> np.ndarray:
        if is_regressor(self.estimator):
            p = self.estimator.predict(x).reshape(-1, self.number).clip(min=SMALLEST)
            return p / p.sum(1, keepdims=True) if self.target == "category" else p
        p = self.estimator.predict_proba(x)
        if self.target == "categories" or p.shape[1] == self.number:
            return p
        complete = np.zeros((len(p), self.number))
        complete[:, self.estimator.classes_] = p  # classes without a training row have probability 0
        return complete
