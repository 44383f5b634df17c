"""Pairs of completions of which one is preferred, for preference optimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pandas as pd

from warmstart.core.protocols import Preprocessor
from warmstart.core.ranges import Location, Seed, Separator
from warmstart.data.clusters import Chosen, Split
from warmstart.data.readers.preferences import Pair, pairs_to_rows, to_pairs
from warmstart.data.sources.text.chat import Chat


class Preferences(Chat):
    """Pairs of conversations with the same prompt, in the formats of data.readers.preferences.

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

    target_kinds: ClassVar = frozenset({"pairs"})

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

    def read(self, frame: pd.DataFrame, where: str) -> list[Pair]:
        """Return the preferred and the rejected conversation of each row."""
        return to_pairs(frame, where)

    def completion(self, row: Pair) -> str:
        """Return the text of the preferred completion."""
        return super().completion(row[0])

    def table(self, rows: list[Pair]) -> pd.DataFrame:
        return pairs_to_rows(rows)
