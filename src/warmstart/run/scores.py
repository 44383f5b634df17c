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
    """Write the scores (B,) of all test batches as one float32 array (N,), if there are any."""
    if not batches or batches[0] is None:
        return
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate([scores.detach().float().cpu().numpy() for scores in batches]))
    write_atomically(run.path / SCORES, buffer.getvalue())


def read_scores(folder: Path) -> np.ndarray | None:
    """Read the scores (N,) of a run; None if its metric is no mean over examples.

    Raises:
        UserError: the file is damaged.
    """
    scores = _read(folder / SCORES)
    return None if scores is None else scores.astype(np.float64)


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
    names = _read(path)
    if names is not None and names.dtype.kind != "U":
        raise UserError(f"{path} is damaged: it does not contain names")
    return names


def _read(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if values.ndim != 1:
        raise UserError(f"{path} is damaged: it is not a one-dimensional array")
    return values
