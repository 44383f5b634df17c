"""A run's scores on the test split, one per example: what the noise of a test set is told by."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from warmstart.core.errors import UserError
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

SCORES = "test_scores.npy"


def save_scores(run: RunFolder, batches: Sequence[Tensor | None]) -> None:
    """Write the scores (B,) of all test batches as one float32 array (N,); nothing where there are none."""
    if not batches or batches[0] is None:
        return
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate([scores.detach().float().cpu().numpy() for scores in batches]))
    write_atomically(run.path / SCORES, buffer.getvalue())


def read_scores(folder: Path) -> np.ndarray | None:
    """A run's scores (N,), or None where its metric is no mean over examples.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / SCORES
    if not path.exists():
        return None
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if scores.ndim != 1:
        raise UserError(f"{path} is damaged: it holds no list of scores")
    return scores.astype(np.float64)
