"""Encode raw inputs and targets for a loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor

ALIGNED = ("span", "tags", "text")  # targets that depend on the tokens or frames: encoded together with the inputs
DTYPES = {"value": np.float64, "categories": np.float32}  # values are cast to float32 after standardization


def encode(preprocessor: Preprocessor, x: Any, target: str | None, y: Any = None) -> tuple[Any, Any]:
    """Return encoded inputs and targets of a kind; the targets may be None."""
    if target in ALIGNED:
        return preprocessor.align(x, y, target)
    return preprocessor.encode(x), None if y is None or target is None else torch.from_numpy(targets(target, y))


def targets(kind: str, y: Any) -> np.ndarray:
    """Copy targets (N, ...) with the dtype of their kind."""
    return np.array(y, dtype=DTYPES.get(kind))


def moments(y: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each column of targets (N, K); 1 for constant columns.

    Raises:
        UserError: a target is not a finite number, or too large to compute with.
    """
    y = y.astype(np.float64)
    center = y[0] + (y - y[0]).mean(0)  # exact for a constant target
    largest = np.abs(y - center).max(0)
    largest = np.where(largest > 0, largest, 1.0)
    spread = largest * ((y - center) / largest).std(0)
    if not (np.isfinite(center) & np.isfinite(spread)).all():
        raise UserError("the training targets are not all finite numbers, or too large to compute with: check the data")
    return tuple(center.tolist()), tuple(np.where(spread > 0, spread, 1.0).tolist())
