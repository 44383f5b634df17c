"""Recordings with noise behind them, for shifted test splits."""

from __future__ import annotations

import numpy as np
import pandas as pd


def with_noise(sounds: pd.DataFrame, decibels: float, seed: int) -> pd.DataFrame:
    """The same table with white noise in every waveform, whose power is so many decibels below the recording's own.

    The same recordings and seed give the same noise.
    """
    generator = np.random.default_rng(seed)

    def spoilt(values: np.ndarray) -> np.ndarray:
        deviation = np.sqrt(np.square(values, dtype=np.float64).mean() / 10 ** (decibels / 10))
        return (values + generator.normal(0, deviation, len(values))).astype(np.float32)

    return sounds.assign(audio=pd.Series([spoilt(values) for values in sounds.audio], sounds.index, dtype=object))
