"""Raw rows to what a loader takes: inputs and targets, encoded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from warmstart.contracts import Preprocessor

PLACES = ("span", "tags", "text")  # targets that are places in the input, or must fit it: both are encoded together


def encode(preprocessor: Preprocessor, x: Any, target: str | None, y: Any = None) -> tuple[Any, Any]:
    """Raw inputs, and targets of a kind where there are any, as a loader takes them."""
    if target in PLACES:
        return preprocessor.align(x, y, target)
    return preprocessor.encode(x), None if y is None or target is None else torch.from_numpy(np.array(y))
