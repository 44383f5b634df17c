"""The textbook example: two sets of feature vectors whose targets look along the same hidden directions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from warmstart.contracts import Rows, Splits, UserError
from warmstart.data.preprocess.vector import Preprocessor


class Vectors:
    """Standard normal vectors x and hidden activations h = tanh(W x) with one W for both sets.

    The generic set's targets are real values, linear in h; the task's are classes, the largest of linear scores in h.
    """

    modality: ClassVar = "vector"
    offers: ClassVar = frozenset({"category", "value"})

    def __init__(
        self,
        features: int = 100,
        directions: int = 8,
        values: int = 16,
        classes: int = 4,
        rows: int = 10_000,
        noise: float = 0.1,
        seed: int = 0,
    ):
        if rows < 20 or classes < 2 or min(features, directions, values) < 1 or seed < 0:
            raise UserError("data: rows must be 20 or more, classes 2 or more, features, directions, values above 0")
        self.features, self.directions, self.values, self.classes = features, directions, values, classes
        self.rows, self.noise, self.seed = rows, noise, seed

    def load(self, target: str | None) -> Splits:
        """Vectors (N, F), with real values (N, K) for a generic set or class numbers (N,) for a task."""
        shared, own = (np.random.default_rng([self.seed, part]) for part in (0, 1 if target == "category" else 2))
        w = shared.standard_normal((self.features, self.directions)) * 2 / np.sqrt(self.features)
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

    def preprocessor(self) -> Preprocessor:
        """Per feature."""
        return Preprocessor()
