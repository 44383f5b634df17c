"""Nearest neighbors of the features of the initial weights."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from warmstart.baseline.estimator import Estimator
from warmstart.core.protocols import Baseline, Preprocessor
from warmstart.core.ranges import PositiveFloat, PositiveInt


class KNN(Baseline):
    """The k nearest labelled rows by cosine similarity of the frozen features, each with the same or its own weight.

    Args:
        neighbors: numbers of neighbors, of which the best is used.
        temperature: the weight of a neighbor is exp(cosine similarity / temperature), as in Wu et al. (2018),
            https://arxiv.org/abs/1805.01978; equal weights are tried too.
    """

    start: ClassVar = "features"

    def __init__(self, neighbors: list[PositiveInt] | None = None, temperature: PositiveFloat = 0.07):
        self.neighbors, self.temperature = neighbors or [1, 3, 5, 10, 20, 50], temperature

    def inputs(self, preprocessor: Preprocessor, raw: Any, encoded: Any) -> np.ndarray:
        """Return features of length 1 (N, D)."""
        return encoded / np.linalg.norm(encoded, axis=1, keepdims=True).clip(min=1e-12)

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Estimator]:
        kind = KNeighborsClassifier if target == "category" else KNeighborsRegressor
        weights = functools.partial(similarity_weights, temperature=self.temperature)
        counts = sorted({min(count, rows) for count in self.neighbors})
        for count, weight in itertools.product(counts, ("uniform", weights)):
            if count > 1 or weight == "uniform":
                estimator = kind(count, weights=weight, algorithm="brute", n_jobs=1)
                yield Estimator(estimator, target, outputs)


def similarity_weights(distances: np.ndarray, temperature: float) -> np.ndarray:
    """Return exp(cosine similarity / temperature) for Euclidean distances (N, k) of vectors of length 1.

    The largest weight of a row is 1.
    """
    similarity = 1 - np.square(distances) / 2
    return np.exp((similarity - similarity.max(1, keepdims=True)) / temperature)
