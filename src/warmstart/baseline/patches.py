"""A linear model of whitened random patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn import functional as F

from warmstart.baseline.estimator import Estimator
from warmstart.core.protocols import Baseline, Preprocessor
from warmstart.core.ranges import PositiveInt, between
from warmstart.data.preprocess.whitened_patches import CONTRAST, rows_of, whitened_patches

SMALLEST, LARGEST = 16, 32  # height and width in pixels; larger images are reduced
THRESHOLD = 0.25  # subtracted from similarities
CHUNK, ROWS = 16, 1000  # images and rows processed at a time
ALPHAS = (1e2, 1e3, 1e4, 1e5)  # regularization strengths


class Patches(Baseline):
    """Ridge regression on similarities to random patches, whitened and pooled over the quadrants of an image.

    Source: Coates and Ng (2011), "The Importance of Encoding Versus Training with Sparse Coding and Vector
    Quantization", https://icml.cc/2011/papers/485_icmlpaper.pdf: soft thresholds of the similarities of both signs. The
    patches are from all training images, without their targets, and the same for every seed.

    Args:
        patches: number of patches.
        size: height and width of a patch in pixels.
        stride: distance between neighboring patches of an image in pixels.
    """

    modalities: ClassVar = frozenset({"image"})

    def __init__(self, patches: PositiveInt = 1000, size: between(2, SMALLEST // 2) = 6, stride: PositiveInt = 2):
        self.patches, self.size, self.stride = patches, size, stride

    def unsupported(self, x: Any) -> str | None:
        sides = x.shape[2:]
        if min(sides) < SMALLEST:
            shown = " x ".join(map(str, sides))
            return f"takes images of at least {SMALLEST} x {SMALLEST} pixels, and these have {shown}"
        return None

    def fit(self, preprocessor: Preprocessor, x: np.ndarray) -> None:
        """Sample the patches and compute the filters."""
        generator = np.random.default_rng(0)
        images = to_pixels(preprocessor.encode(x[rows_of(len(x), generator)]), preprocessor.white)
        self.filters, self.bias = whitened_patches(images, self.patches, self.size, generator)

    def inputs(self, preprocessor: Preprocessor, raw: Any, encoded: Tensor) -> np.ndarray:
        """Return pooled similarities (N, 8 * patches), float16."""
        parts = [self._pooled(to_pixels(x, preprocessor.white)) for x in encoded.split(CHUNK)]
        return torch.cat(parts).half().numpy()

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Estimator]:
        for alpha in ALPHAS:
            yield Estimator(ScaledRidge(alpha), target, outputs)

    def _pooled(self, x: Tensor) -> Tensor:
        """Return the features (B, 8 * patches) of images (B, C, H, W) with pixels from 0 to 255."""
        mean, square = (
            F.avg_pool2d(values.mean(1, keepdim=True), self.size, self.stride) for values in (x, x.square())
        )
        scale = ((square - mean.square()).clamp(min=0) + CONTRAST).rsqrt()
        similar = F.conv2d(x, self.filters, stride=self.stride) * scale - self.bias.view(-1, 1, 1)
        signs = ((sign * similar - THRESHOLD).clamp_(min=0) for sign in (1, -1))
        return torch.cat([F.adaptive_avg_pool2d(part, 2).flatten(1) for part in signs], dim=1)


def to_pixels(x: Tensor, white: float) -> Tensor:
    """Return encoded images (B, C, H, W) as floats from 0 to 255, reduced to at most LARGEST x LARGEST."""
    x = x.float() * (255 / white)
    sides = [min(side, LARGEST) for side in x.shape[2:]]
    return x if sides == list(x.shape[2:]) else F.interpolate(x, sides, mode="area")


class ScaledRidge(RegressorMixin, BaseEstimator):
    """Ridge regression on standardized inputs, which are processed in parts."""

    def __init__(self, alpha: float):
        self.alpha = alpha

    def fit(self, x: np.ndarray, y: np.ndarray) -> ScaledRidge:
        """Fit to inputs (N, F) and targets (N, K)."""
        x = x.astype(np.float32)
        mean, scale = x.mean(0), np.sqrt(x.var(0) + 1e-7)
        model = Ridge(self.alpha).fit((x - mean) / scale, y.astype(np.float32))
        self.weights = (model.coef_ / scale).T
        self.offset = model.intercept_ - mean @ self.weights
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return predictions (N, K)."""
        parts = (x[start : start + ROWS].astype(np.float32) for start in range(0, len(x), ROWS))
        return np.concatenate([part @ self.weights + self.offset for part in parts])
