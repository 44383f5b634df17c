"""Ensembles of decision trees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor

from warmstart.baseline.estimator import Estimator
from warmstart.core.protocols import Baseline
from warmstart.core.ranges import PositiveInt

BOOSTING = 250  # minimum number of rows; with fewer, gradient boosting is slow and worse than randomized trees
SMALL = 1024  # maximum number of values of an image
LEAVES = 20_000  # approximate maximum number of leaves of a randomized tree


class Trees(Baseline):
    """The better of extremely randomized trees (Geurts et al. 2006) and gradient boosting, on the scaled inputs.

    Gradient boosting is on histograms, as in LightGBM, and used from 250 rows on.

    Args:
        trees: number of randomized trees.
    """

    modalities: ClassVar = frozenset({"vector", "image"})
    is_random: ClassVar = True

    def __init__(self, trees: PositiveInt = 200):
        self.trees = trees

    def unsupported(self, x: Any) -> str | None:
        """Return a reason for images that are not small; tables may have any number of columns."""
        size = math.prod(x.shape[1:])
        if x.ndim > 2 and size > SMALL:
            return f"takes images of at most {SMALL:,} values, and these have {size:,}"
        return None

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Estimator]:
        kind = ExtraTreesClassifier if target == "category" else ExtraTreesRegressor
        settings = {"n_estimators": self.trees, "min_samples_leaf": 1 + rows // LEAVES, "random_state": seed}
        for features in ("sqrt", 1.0) if target == "value" else ("sqrt",):
            yield Estimator(kind(max_features=features, n_jobs=1, **settings), target, outputs)
        if rows >= BOOSTING:
            yield Estimator(boosting(target, seed), target, outputs)


def boosting(target: str, seed: int) -> BaseEstimator:
    """Return gradient boosting for a kind of target."""
    if target == "value":
        return MultiOutputRegressor(HistGradientBoostingRegressor(random_state=seed))
    model = HistGradientBoostingClassifier(random_state=seed)
    return OneVsRestClassifier(model) if target == "categories" else model
