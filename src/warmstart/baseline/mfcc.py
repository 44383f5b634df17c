"""A linear model of the cepstra of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.fft import dct
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from warmstart.baseline.estimator import Estimator
from warmstart.baseline.linear import STRENGTHS, linear
from warmstart.core.protocols import Baseline, Preprocessor
from warmstart.core.ranges import PositiveInt
from warmstart.data.preprocess import speech

FASTEST = 16_000  # Hz; recordings with a higher rate are resampled


class MFCC(Baseline):
    """Logistic regression, or ridge regression of values, on mean and deviation of mel-frequency cepstra over time.

    Args:
        cepstra: number of coefficients of a frame.
        mels: number of mel bands of a frame.
        segments: number of equal parts of a recording, each with its own mean and deviation.
    """

    modalities: ClassVar = frozenset({"speech"})

    def __init__(self, cepstra: PositiveInt = 20, mels: PositiveInt = 40, segments: PositiveInt = 3):
        self.cepstra, self.mels, self.segments = cepstra, mels, segments

    def fit(self, preprocessor: Preprocessor, x: pd.DataFrame) -> None:
        """Set the sampling rate to that of most recordings."""
        self.frames = speech.Preprocessor(rate=min(int(x["rate"].mode()[0]), FASTEST), mels=self.mels)

    def inputs(self, preprocessor: Preprocessor, raw: pd.DataFrame, encoded: Any) -> np.ndarray:
        """Return mean and standard deviation of each coefficient over each segment (N, segments * 2 * cepstra)."""
        return np.stack([self._moments(frames.numpy()) for frames in self.frames.log_mels(raw)])

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Estimator]:
        for strength in STRENGTHS:
            yield Estimator(make_pipeline(StandardScaler(), linear(target, strength)), target, outputs)

    def _moments(self, frames: np.ndarray) -> np.ndarray:
        """Return the features of a recording, given its log-mel frames (T, mels)."""
        values = dct(frames, norm="ortho")[:, : self.cepstra]
        parts = np.array_split(values, min(self.segments, len(values)))
        parts += parts[-1:] * (self.segments - len(parts))  # fewer frames than segments
        return np.concatenate([moment for part in parts for moment in (part.mean(0), part.std(0))])
