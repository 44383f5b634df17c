"""Pairs of completions of which one is preferred, and rated completions, for preference optimization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pandas as pd

from warmstart.core.protocols import Preprocessor
from warmstart.core.ranges import Location, Seed, Separator
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.readers.preferences import Pair, pairs_to_rows, to_pairs
from warmstart.data.readers.ratings import PAIR, Rated, rated_to_rows, to_rated, to_rated_table
from warmstart.data.readers.splits import describe
from warmstart.data.sources.text.chat import Chat


class Preferences(Chat):
    """Pairs of conversations with the same prompt, in the formats of data.readers.preferences, or rated conversations.

    Objectives with the target `rated` need a column `label` (data.readers.ratings), or pairs, which become two rows.

    The splits train, validation and test of the data set are used; missing ones are split off from the training rows,
    15 % each. Splits named test_<shift> are further test splits. The target of a row is the preferred completion.

    Args:
        tokenizer: constructor of the preprocessor of texts.
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder of them by splits, or a hub name.
        template: a named chat template or one in the dialect of Jinja; None for that of the initial weights.
        cluster: column of the clusters of rows that are not independent, such as prompts.
        split: row, or cluster to keep each cluster in one split; None for cluster if `cluster` is set, else row.
        test_clusters: clusters of the test split: names, or a part of all, such as 1/3; None for 15 % at random.
        separator: character between cells of a text file; None to detect it in the header.
        config: configuration of a hub data set.
        split_seed: seed of the split.
    """

    target_kinds: ClassVar = frozenset({"pairs", "rated"})

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location,
        template: str | None = None,
        cluster: str | int | None = None,
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        separator: Separator | None = None,
        config: str | None = None,
        split_seed: Seed = 0,
    ):
        settings = (cluster, split, test_clusters, separator, config, split_seed)
        super().__init__(tokenizer, root, template, "assistant", *settings)

    def frames(self, target: str | None) -> dict[str, pd.DataFrame]:
        """Return the tables of the splits; for ratings, a row with a pair becomes two rated rows."""
        found = super().frames(target)
        if target != "rated":
            return found
        return {name: to_rated_table(frame, describe(self.root, name, found)) for name, frame in found.items()}

    def clusters_of(self, frames: Mapping[str, pd.DataFrame]) -> Clusters:
        """Return the settings of the clusters: by default, both rated rows of a pair are one."""
        is_paired = all(PAIR in frame for frame in frames.values())
        return Clusters(PAIR) if is_paired and self.clusters.column is None else self.clusters

    def strata(self, rows: list[Any], target: str | None) -> pd.DataFrame:
        """Return the ratings, if rows are rated."""
        if target != "rated":
            return super().strata(rows, target)
        return pd.DataFrame({"label": [str(row.label) for row in rows]}, dtype=object)

    def read(self, frame: pd.DataFrame, where: str, target: str | None) -> list[Pair] | list[Rated]:
        """Return the preferred and the rejected conversation of each row, or its rated conversation."""
        return to_rated(frame, where) if target == "rated" else to_pairs(frame, where)

    def completion(self, row: Pair | Rated) -> str:
        """Return the text of the preferred or rated completion."""
        return super().completion(row[0])

    def table(self, rows: list[Any], target: str | None) -> pd.DataFrame:
        return rated_to_rows(rows) if target == "rated" else pairs_to_rows(rows)
