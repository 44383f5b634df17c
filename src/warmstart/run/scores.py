"""Scores and clusters of the test examples, from which reports estimate the variance due to the test set."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from warmstart.core.errors import UserError
from warmstart.run.files import write_atomically
from warmstart.run.folder import CLUSTERS, RunFolder

if TYPE_CHECKING:
    from torch import Tensor

SCORES = "test_scores.npy"


def save_scores(run: RunFolder, batches: Sequence[Tensor | None]) -> None:
    """Write the scores (B,) or (B, 2) of all test batches as one float32 array, if there are any."""
    if not batches or batches[0] is None:
        return
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate([scores.detach().float().cpu().numpy() for scores in batches]))
    write_atomically(run.path / SCORES, buffer.getvalue())


def read_scores(folder: Path) -> np.ndarray | None:
    """Read the scores (N,) of a run, whose mean is its metric; None if it has none.

    Scores (N, 2) are linearized (`linearized`).

    Raises:
        UserError: the file is damaged.
    """
    path = folder / SCORES
    scores = _load(path)
    if scores is None:
        return None
    if scores.ndim == 2 and scores.shape[1] == 2:
        return linearized(scores.astype(np.float64))
    return _flat(scores, path).astype(np.float64)


def linearized(parts: np.ndarray) -> np.ndarray:
    """Return values (N,) whose mean is the ratio of the sums of numerators and denominators (N, 2).

    The values are the first-order Taylor expansion of the ratio, so that the variance of their mean is that of the
    ratio in large samples. The ratio is 0 if all denominators are.

    Source: Cochran (1977), "Sampling Techniques", ch. 6
    """
    numerators, denominators = parts.T
    total = denominators.sum()
    if total == 0:
        return np.zeros(len(parts))
    ratio = numerators.sum() / total
    return ratio + (numerators - ratio * denominators) * len(parts) / total


def save_clusters(run: RunFolder, clusters: np.ndarray | None) -> None:
    """Write the names of the test examples' clusters (N,), if there are any, and their checksum into the record."""
    if clusters is not None:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(clusters, dtype=str), allow_pickle=False)
        write_atomically(run.path / CLUSTERS, buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        run.update(checksums={**(run.record.get("checksums") or {}), CLUSTERS: digest})


def read_clusters(folder: Path) -> np.ndarray | None:
    """Read and verify the names of the test examples' clusters (N,); None if the examples are independent.

    Raises:
        UserError: the file is missing, damaged, or has no checksum in the record.
    """
    path = RunFolder.open(folder).checked(CLUSTERS)
    names = _load(path)
    names = None if names is None else _flat(names, path)
    if names is not None and names.dtype.kind != "U":
        raise UserError(f"{path} is damaged: it does not contain names")
    return names


def _load(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def _flat(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim != 1:
        raise UserError(f"{path} is damaged: it is not a one-dimensional array")
    return values
