"""Synthetic vectors: a generic set and a task whose targets depend on the same or on other hidden directions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Source
from warmstart.core.ranges import NonNegativeFloat, PositiveInt, Seed, at_least
from warmstart.data.preprocess.vector import Preprocessor


class Vectors(Source):
    """Standard normal vectors x and hidden activations h = tanh(W x), with the same W for both sets.

    The targets of the generic set are real values, linear in h; those of the task are classes, the argmax of linear
    scores in h. Without `shared`, the generic set has another W, orthogonal to that of the task, so that its targets
    are independent of the classes.
    """

    modality: ClassVar = "vector"
    target_kinds: ClassVar = frozenset({"category", "value"})

    def __init__(
        self,
        features: PositiveInt = 100,
        directions: PositiveInt = 8,
        values: PositiveInt = 16,
        classes: at_least(2) = 4,
        rows: at_least(20) = 10_000,
        noise: NonNegativeFloat = 0.1,
        shared: bool = True,
        seed: Seed = 0,
    ):
        if not shared and features < 2 * directions:
            raise UserError("data: with shared=false, features must be at least twice the directions")
        self.features, self.directions, self.values, self.classes = features, directions, values, classes
        self.rows, self.noise, self.shared, self.seed = rows, noise, shared, seed

    def load(self, target: str | None) -> Splits:
        """Return vectors (N, F), with real values (N, K) for the generic set, or class indices (N,) for the task."""
        shared, own = (np.random.default_rng([self.seed, part]) for part in (0, 1 if target == "category" else 2))
        w = shared.standard_normal((self.features, self.directions)) * 2 / np.sqrt(self.features)
        if target != "category" and not self.shared:
            w = self.orthogonal_to(w)
        x = own.standard_normal((self.rows, self.features)).astype(np.float32)
        h = np.tanh(x @ w)
        if target == "category":
            scores = h @ own.standard_normal((self.directions, self.classes))
            y = (scores + self.noise * own.standard_normal(scores.shape)).argmax(1)
            labels = tuple(f"class {index}" for index in range(self.classes))
        else:
            y = h @ own.standard_normal((self.directions, self.values)) / np.sqrt(self.directions)
            y = (y + self.noise * own.standard_normal(y.shape)).astype(np.float32)
            labels = tuple(f"value {index}" for index in range(self.values))
        a, b = int(0.7 * self.rows), int(0.85 * self.rows)
        parts = (Rows(x[part], y[part]) for part in (slice(0, a), slice(a, b), slice(b, None)))
        return Splits(*parts, labels=labels)

    def orthogonal_to(self, w: np.ndarray) -> np.ndarray:
        """Return directions (F, D) of length 2 that are orthogonal to `w` and to each other."""
        others = np.random.default_rng([self.seed, 3]).standard_normal(w.shape)
        return 2 * np.linalg.qr(np.hstack([w, others]))[0][:, self.directions :]

    def preprocessor(self) -> Preprocessor:
        return Preprocessor()
