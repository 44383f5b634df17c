"""Raw rows to what a loader takes: inputs and targets, encoded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor

PLACES = ("span", "tags", "text")  # targets that are places in the input, or must fit it: both are encoded together
KEPT = {"value": np.float64, "categories": np.float32}  # real values are rounded only once they are standardised


def encode(preprocessor: Preprocessor, x: Any, target: str | None, y: Any = None) -> tuple[Any, Any]:
    """Raw inputs, and targets of a kind where there are any, as a loader takes them."""
    if target in PLACES:
        return preprocessor.align(x, y, target)
    return preprocessor.encode(x), None if y is None or target is None else torch.from_numpy(targets(target, y))


def targets(kind: str, y: Any) -> np.ndarray:
    """A copy of targets (N, ...) in the precision of their kind."""
    return np.array(y, dtype=KEPT.get(kind))


def moments(y: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each column of real-valued targets (N, K); 1 for one that does not vary.

    Raises:
        UserError: a target is not a finite number, or too large to compute with.
    """
    y = y.astype(np.float64)
    center = y[0] + (y - y[0]).mean(0)  # of a constant, exactly that constant
    largest = np.abs(y - center).max(0)
    largest = np.where(largest > 0, largest, 1.0)
    spread = largest * ((y - center) / largest).std(0)
    if not (np.isfinite(center) & np.isfinite(spread)).all():
        raise UserError("the training targets are not all finite numbers, or too large to compute with: check the data")
    return tuple(center.tolist()), tuple(np.where(spread > 0, spread, 1.0).tolist())
