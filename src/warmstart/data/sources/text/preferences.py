"""Pairs of completions of which one is preferred, for preference optimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed, Separator
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.preprocess import chat
from warmstart.data.readers.preferences import pairs_to_rows, to_pairs
from warmstart.data.readers.splits import describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.own_splits import read_own_splits, split_table
from warmstart.data.splits import reset_index


class Preferences(Source):
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

    modality: ClassVar = "text"
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
        self.tokenizer, self.root, self.template, self.config = tokenizer, root, template, config
        self.clusters, self.split_seed = Clusters(cluster, split, test_clusters), split_seed
        self.dialect = Dialect(separator)

    def load(self, target: str | None) -> Splits:
        """Return pairs; the split does not depend on the kind of target.

        Raises:
            UserError: there are no pairs, or one is malformed.
        """
        frames = read_own_splits(self.root, self.config, self.dialect)
        where = {name: describe(self.root, name, frames) for name in frames}
        parts = {name: to_pairs(frame, where[name]) for name, frame in frames.items()}
        names = [self.clusters.read(frame, where[name]) for name, frame in frames.items()]
        targets = {name: pd.DataFrame(index=range(len(part))) for name, part in parts.items()}
        pairs = [pair for part in parts.values() for pair in part]
        preferred = np.array([chosen[-1].get("content") or "" for chosen, _ in pairs], dtype=object)
        x, seed = pairs_to_rows(pairs), self.split_seed
        splits = split_table(x, targets, (), self.root, seed, lambda table: (preferred, ()), self.clusters, names)
        return reset_index(splits)

    def preprocessor(self) -> Preprocessor:
        own = self.tokenizer(columns=["messages"], dialect=self.dialect.state())
        return chat.Preprocessor.of(own, self.template, "assistant")
