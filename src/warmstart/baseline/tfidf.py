"""A linear model of word and character n-grams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pandas as pd
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import VarianceThreshold
from sklearn.pipeline import make_pipeline

from warmstart.baseline.estimator import Estimator
from warmstart.baseline.linear import linear
from warmstart.core.protocols import Baseline, Preprocessor
from warmstart.core.ranges import PositiveInt

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse regularization strengths


class TfIdf(Baseline):
    """Logistic regression, or ridge regression of values, on TF-IDF weights of n-grams of words and characters.

    Vocabulary and weights are those of all training texts; n-grams that no labelled row has are not used. The texts of
    a pair have separate n-grams.

    Args:
        words: maximum length of n-grams of words.
        characters: maximum length of n-grams of characters within words, from 2.
        features: maximum number of n-grams of words, and of characters, of a column.
    """

    modalities: ClassVar = frozenset({"text"})

    def __init__(self, words: PositiveInt = 2, characters: PositiveInt = 5, features: PositiveInt = 200_000):
        self.settings = {
            "word": {"ngram_range": (1, words), "token_pattern": r"(?u)\b\w+\b"},
            "char_wb": {"ngram_range": (min(2, characters), characters)},
        }
        self.features = features

    def fit(self, preprocessor: Preprocessor, x: pd.DataFrame) -> None:
        """Count the n-grams of each column."""
        self.vectorizers = {
            (name, kind): TfidfVectorizer(analyzer=kind, sublinear_tf=True, max_features=self.features, **settings).fit(
                x[name]
            )
            for name in x
            for kind, settings in self.settings.items()
        }

    def inputs(self, preprocessor: Preprocessor, raw: pd.DataFrame, encoded: Any) -> csr_matrix:
        """Return the weights of the n-grams (N, F)."""
        return hstack([one.transform(raw[name]) for (name, _), one in self.vectorizers.items()], format="csr")

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Estimator]:
        for strength in STRENGTHS:
            yield Estimator(make_pipeline(VarianceThreshold(), linear(target, strength)), target, outputs)
