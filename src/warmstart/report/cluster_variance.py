"""The variance of a mean over test examples in clusters, such as the recordings of a speaker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ClusterVariance(NamedTuple):
    """Variance components of the mean of differences (S, N) whose examples are in clusters.

    `clusters` is the variance of the mean over seeds that is due to the clusters and their examples, including
    1 / S of `interaction`, the variance of one seed's mean that is due to their interaction with the seeds. `freedom`
    are the degrees of freedom of `clusters`.
    """

    clusters: float
    interaction: float
    freedom: float


def cluster_variance(centred: np.ndarray, clusters: np.ndarray) -> ClusterVariance:
    """Return the cluster-robust variance (CR3) of the mean of a centred matrix (S, N), by names or numbers (N,).

    For an intercept, CR3 divides the total of a cluster by 1 - its fraction of the examples: it is the sum of the
    squared changes of the mean when one cluster is left out, and too large rather than too small if sizes differ. The
    degrees of freedom are the effective number of clusters minus 1: N^2 over the sum of the squared sizes, which is the
    number of clusters if all sizes are equal.

    Raises:
        ValueError: there is one cluster only, or not one name per example.

    Source: Bell, McCaffrey (2002), "Bias reduction in standard errors for linear regression with multi-stage samples",
    Survey Methodology 28; Carter, Schnepel, Steigerwald (2017), "Asymptotic behavior of a t-test robust to cluster
    heterogeneity", Review of Economics and Statistics 99
    """
    n, examples = centred.shape
    codes = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    if len(codes) != examples:
        raise ValueError(f"{examples} examples, but the clusters of {len(codes)}")
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        raise ValueError("one cluster has no variance: give two or more")
    order = np.argsort(codes, kind="stable")
    totals = np.add.reduceat(centred[:, order], np.cumsum(sizes) - sizes, axis=1)
    by_seed, by_cluster = totals.sum(axis=1, keepdims=True) / examples, totals.mean(axis=0)
    rest = totals - by_cluster - by_seed * sizes
    fractions = sizes / examples
    weights = 1 / (1 - fractions) ** 2 / examples**2
    interaction = float((weights * rest**2).sum()) / (n - 1)
    return ClusterVariance(float(weights @ by_cluster**2), interaction, 1 / float(fractions @ fractions) - 1)
