"""The clusters of a transfer's test rows, and the population that its verdicts are about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_CLUSTERS = 5  # with fewer, a verdict is about these clusters only
NAME_LENGTH = 30


@dataclass(frozen=True)
class Clusters:
    """Clusters of test rows, such as speakers.

    Args:
        names: the name of each cluster.
        codes: the index of each row's cluster (N,).
        noun: what the clusters are, in the plural.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    noun: str = "clusters"

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def is_sample(self) -> bool:
        """Return whether they are enough for a statement about other clusters of their kind."""
        return self.count >= MIN_CLUSTERS

    @property
    def these(self) -> str:
        """Return the clusters as text, with their names."""
        names = ", ".join(name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…" for name in self.names)
        return f"{f'these {self.count} {self.noun}' if self.count > 1 else f'one of the {self.noun}'} ({names})"

    def summary(self) -> dict[str, Any]:
        """Return count, names (if they are few), noun, and the scope of verdicts as plain JSON.

        The scope is "population", or "these" with the clusters as text.
        """
        found: dict[str, Any] = {"count": self.count, "noun": self.noun}
        if self.is_sample:
            return {**found, "names": None, "scope": "population", "these": None}
        return {**found, "names": list(self.names), "scope": "these", "these": self.these}


def find_clusters(clusters: np.ndarray | None, column: Any = None) -> Clusters | None:
    """Return the clusters of rows with these names (N,); None for independent rows.

    Args:
        column: setting data.cluster, the name of the column, if known.
    """
    if clusters is None:
        return None
    names, codes = np.unique(clusters, return_inverse=True)
    noun = plural(column) if isinstance(column, str) and re.fullmatch("[A-Za-z]+", column) else "clusters"
    return Clusters(tuple(map(str, names)), codes.reshape(-1), noun)


def plural(noun: str) -> str:
    """Return the plural of an English noun."""
    if re.search("(s|x|ch|sh)$", noun):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"
