"""Conversations, for instruction tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed, Separator
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.preprocess import chat
from warmstart.data.preprocess.chat_template import Supervise
from warmstart.data.readers.chats import to_conversations, to_rows
from warmstart.data.readers.splits import describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.own_splits import read_own_splits, split_table
from warmstart.data.sources.text.instructions import make_instructions
from warmstart.data.splits import reset_index


class Chat(Source):
    """Conversations with the completions of an assistant, in the formats of data.readers.chats.

    The splits train, validation and test of the data set are used; missing ones are split off from the training rows,
    15 % each. Splits named test_<shift> are further test splits. The target of a row is its last message.

    Args:
        tokenizer: constructor of the preprocessor of texts.
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder of them by splits, or a hub name; None for
            synthetic instructions (data.sources.text.instructions).
        template: a named chat template or one in the dialect of Jinja; None for that of the tokenizer.
        supervise: messages to train on: assistant for all of the assistant, last for its last one, all for all.
        cluster: column of the clusters of rows that are not independent, such as users.
        split: row, or cluster to keep each cluster in one split; None for cluster if `cluster` is set, else row.
        test_clusters: clusters of the test split: names, or a part of all, such as 1/3; None for 15 % at random.
        separator: character between cells of a text file; None to detect it in the header.
        config: configuration of a hub data set.
        split_seed: seed of the split.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset({"completion"})

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location | None = None,
        template: str | None = None,
        supervise: Supervise = "assistant",
        cluster: str | int | None = None,
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        separator: Separator | None = None,
        config: str | None = None,
        split_seed: Seed = 0,
    ):
        self.tokenizer, self.root, self.config = tokenizer, root, config
        self.template, self.supervise = template, supervise
        self.clusters, self.split_seed = Clusters(cluster, split, test_clusters), split_seed
        self.dialect = Dialect(separator)

    def load(self, target: str | None) -> Splits:
        """Return conversations; the split does not depend on the kind of target.

        Raises:
            UserError: there are no conversations, or one is malformed.
        """
        frames = self.frames(target)
        root, clusters = self.root or "synthetic instructions", self.clusters_of(frames)
        where = {name: describe(root, name, frames) for name in frames}
        parts = {name: self.read(frame, where[name], target) for name, frame in frames.items()}
        names = [clusters.read(frame, where[name]) for name, frame in frames.items()]
        strata = {name: self.strata(part, target) for name, part in parts.items()}
        rows = [row for part in parts.values() for row in part]
        y, seed = np.array(list(map(self.completion, rows)), dtype=object), self.split_seed
        table = self.table(rows, target)
        return reset_index(split_table(table, strata, (), root, seed, lambda known: (y, ()), clusters, names))

    def frames(self, target: str | None) -> dict[str, pd.DataFrame]:
        """Return the tables of the splits of the data set."""
        if self.root is None:
            return {"train": make_instructions()}
        return read_own_splits(self.root, self.config, self.dialect)

    def clusters_of(self, frames: Mapping[str, pd.DataFrame]) -> Clusters:
        """Return the settings of the clusters of these tables."""
        return self.clusters

    def strata(self, rows: list[Any], target: str | None) -> pd.DataFrame:
        """Return what to stratify the splits by, at most one column."""
        return pd.DataFrame(index=range(len(rows)))

    def read(self, frame: pd.DataFrame, where: str, target: str | None) -> list[Any]:
        """Return the conversation of each row; `where` is what the table is called in messages."""
        return to_conversations(frame, where)

    def completion(self, row: Any) -> str:
        """Return the text of the completion of a row."""
        return row[-1].get("content") or ""

    def table(self, rows: list[Any], target: str | None) -> pd.DataFrame:
        """Return the inputs of the preprocessor."""
        return to_rows(rows)

    def preprocessor(self) -> Preprocessor:
        own = self.tokenizer(columns=["messages"], dialect=self.dialect.state())
        return chat.Preprocessor.of(own, self.template, self.supervise)
