"""Measures of how well frozen features predict targets, computed on labelled rows without any training."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import cosine_distances

NEIGHBORS = 5
ITERATIONS, TOLERANCE = 100, 1e-5
TINY = 1e-12


def nearest_neighbor_score(
    features: np.ndarray, y: np.ndarray, target: str, clusters: np.ndarray | None = None
) -> float:
    """Return the leave-one-out score of a prediction from the 5 nearest rows, by cosine of the centered features.

    Rows of the same cluster are no neighbors, unless there is only one cluster.

    Accuracy for targets of kind `category` (N,), the mean accuracy over columns for `categories` (N, C), and the
    coefficient of determination R2 for `value` (N, K).

    Args:
        features: (N, D), two rows or more.
        y: targets.
        target: their kind.
        clusters: names of the rows' clusters (N,), if any.

    Raises:
        ValueError: features are not finite.
    """
    distances = cosine_distances(features - features.mean(axis=0))
    groups = np.arange(len(y)) if clusters is None or len(set(clusters)) == 1 else np.asarray(clusters)
    distances[groups[:, None] == groups] = np.inf
    count = min(NEIGHBORS, int(np.isfinite(distances).sum(axis=1).min()))
    nearest = distances.argpartition(count - 1, axis=1)[:, :count]
    votes = columns_of(y, target)[nearest].mean(axis=1)
    if target == "category":
        return float((votes.argmax(axis=1) == y).mean())
    return float(((votes > 0.5) == (y > 0.5)).mean() if target == "categories" else r2_score(y, votes))


def logme(features: np.ndarray, y: np.ndarray, target: str) -> float:
    """Return LogME: the maximum log evidence per row of a Bayesian linear model of the targets, a mean over columns.

    A column is modelled as N(0, I / beta + F F^T / alpha) with features F (N, D); alpha and beta maximize its density
    by fixed-point iteration. Classes have one column each, 0 or 1; numbers are standardized.

    Source: You et al. (2021), "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
    https://arxiv.org/abs/2102.11005, algorithm 1.
    """
    columns = columns_of(y, target)
    if target == "value":
        columns = (columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), TINY)
    u, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    return float(np.mean([evidence(u.T @ column, column, singular**2, features.shape) for column in columns.T]))


def columns_of(y: np.ndarray, target: str) -> np.ndarray:
    """Return targets as columns (N, K): one per class for `category`."""
    return np.eye(int(y.max()) + 1)[y] if target == "category" else y.astype(np.float64)


def evidence(z: np.ndarray, y: np.ndarray, squares: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the maximum log evidence per row of one column of targets.

    Args:
        z: the column in the basis of the left singular vectors (R,).
        y: the column (N,).
        squares: squared singular values (R,).
        shape: (N, D) of the features.
    """
    rows, width = shape
    outside = max(float(y @ y - z @ z), 0.0)  # squared norm of the part that no linear model fits
    alpha = beta = 1.0
    for _ in range(ITERATIONS):
        ratio = alpha / beta
        used = float((squares / (squares + ratio)).sum())
        weights = float((squares * z**2 / (squares + ratio) ** 2).sum())  # squared norm of the weights
        residual = float((z**2 / (1 + squares / ratio) ** 2).sum()) + outside
        alpha, beta = used / max(weights, TINY), (rows - used) / max(residual, TINY)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    determinant = float(np.log(alpha + beta * squares).sum()) + (width - len(squares)) * np.log(alpha)
    total = width * np.log(alpha) + rows * np.log(beta) - determinant - beta * residual - alpha * weights
    return float(total - rows * np.log(2 * np.pi)) / (2 * rows)
