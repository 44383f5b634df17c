"""A constant prediction."""

from __future__ import annotations

from collections.abc import Iterator

from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.multiclass import OneVsRestClassifier

from warmstart.baseline.estimator import Estimator
from warmstart.core.protocols import Baseline


class Majority(Baseline):
    """The frequencies of the classes, or the mean of the values."""

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Estimator]:
        if target == "value":
            model = DummyRegressor()
        else:
            model = DummyClassifier(strategy="prior")
        yield Estimator(OneVsRestClassifier(model) if target == "categories" else model, target, outputs)
