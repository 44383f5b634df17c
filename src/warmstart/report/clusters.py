"""The clusters of a transfer's test rows, and the population that its verdicts are about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_CLUSTERS = 5  # with fewer, a verdict is about these clusters only
MIN_EFFECTIVE = 2  # effective number of clusters; below, one cluster has most of the rows
NAME_LENGTH, NAMES = 30, 5


@dataclass(frozen=True)
class Clusters:
    """Clusters of test rows, such as speakers.

    Args:
        names: the name of each cluster.
        codes: the index of each row's cluster (N,).
        noun: what the clusters are, in the plural.
        has_scores: whether the metric is a mean over rows, so that the scores of clusters can be resampled.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    noun: str = "clusters"
    has_scores: bool = True

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def is_sample(self) -> bool:
        """Return whether a statement about other clusters of their kind is possible."""
        return self.restriction is None

    @property
    def restriction(self) -> str | None:
        """Return why results are about these clusters only; None if they are about others too.

        The effective number of clusters is N^2 over the sum of the squared sizes.
        """
        if not self.has_scores:
            return "The metric is no mean over test rows, so that intervals exclude the variance of the test set"
        rows = "so that the variance of the test set is that of the rows within them"
        if self.count < MIN_CLUSTERS:
            return f"There are fewer than {MIN_CLUSTERS} clusters of test rows, {rows}"
        sizes = np.bincount(self.codes)
        if len(self.codes) ** 2 < MIN_EFFECTIVE * float(sizes @ sizes):
            return f"One of the clusters has most of the test rows, {rows}"
        return None

    @property
    def these(self) -> str:
        """Return the clusters as text, with the first of their names."""
        shown = [name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…" for name in self.names[:NAMES]]
        names = ", ".join(shown) + (f" and {self.count - NAMES} more" if self.count > NAMES else "")
        return f"{f'these {self.count} {self.noun}' if self.count > 1 else f'one of the {self.noun}'} ({names})"

    def summary(self) -> dict[str, Any]:
        """Return count, names, noun, and the scope of verdicts as plain JSON.

        The scope is "population", or "these" with the names of the clusters, the clusters as text, and the reason.
        """
        found: dict[str, Any] = {"count": self.count, "noun": self.noun}
        if self.is_sample:
            return {**found, "names": None, "scope": "population", "these": None, "restriction": None}
        own = {"names": list(self.names), "scope": "these", "these": self.these, "restriction": self.restriction}
        return {**found, **own}


def find_clusters(clusters: np.ndarray | None, column: Any = None, has_scores: bool = True) -> Clusters | None:
    """Return the clusters of rows with these names (N,); None for independent rows.

    Args:
        column: setting data.cluster, the name of the column, if known.
        has_scores: as in `Clusters`.
    """
    if clusters is None:
        return None
    names, codes = np.unique(clusters, return_inverse=True)
    noun = plural(column) if isinstance(column, str) and re.fullmatch("[A-Za-z]+", column) else "clusters"
    return Clusters(tuple(map(str, names)), codes.reshape(-1), noun, has_scores)


def plural(noun: str) -> str:
    """Return the plural of an English noun, which may already be one, such as `speakers`."""
    if re.search("[^aiousx]s$", noun):
        return noun
    if re.search("(s|x|ch|sh)$", noun):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"
