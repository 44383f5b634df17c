"""Sentences of CoNLL column files, with a tag for each word."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from warmstart.core.batch import Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.readers.conll import read_conll_splits
from warmstart.data.readers.splits import describe
from warmstart.data.sources.own_splits import own_splits, split_table
from warmstart.data.sources.text.tags import encode_tags, valid_tags
from warmstart.data.splits import reset_index


class Conll(Source):
    """Named entities, parts of speech, or other tags of words.

    The splits train, validation and test are the files of a folder with these words in their names (also dev, valid,
    testa and testb); missing ones are split off from the training rows, 15 % each. Other test files such as test_news
    are further test splits.

    Args:
        tokenizer: constructor of the preprocessor.
        root: a file, or a folder of files by splits; a file may end in .gz.
        column: column of the tags, from 0; from -1 backwards.
        words: column of the words.
        repair_tags: whether to replace tags that are no valid sequence of BIO or BIOES by those of the same entities.
        cluster: document, the clusters of sentences that -DOCSTART- lines begin, if there are any; None for
            independent sentences.
        split: row, or cluster to keep each document in one split; None for cluster if there are documents, else row.
        test_clusters: documents of the test split: names, or a part of all, such as 1/3; None for 15 % at random.
        split_seed: seed of the split.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset({"tags"})
    is_quick: ClassVar = True  # `load` needs no torch

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location,
        column: int = -1,
        words: int = 0,
        repair_tags: bool = False,
        cluster: Literal["document"] | None = "document",
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        split_seed: Seed = 0,
    ):
        self.tokenizer, self.root, self.column, self.words = tokenizer, root, column, words
        self.repair_tags, self.split_seed = repair_tags, split_seed
        self.cluster, self.split, self.test_clusters = cluster, split, test_clusters
        Clusters(cluster, split, test_clusters)

    def load(self, target: str | None) -> Splits:
        """Return lists of words, and tags with a target; the split does not depend on it.

        Raises:
            UserError: as in `read_conll_splits`, or tags are invalid and `repair_tags` is false.
        """
        frames = own_splits(read_conll_splits(self.root, self.words, self.column), self.root)
        clusters, documents = self._documents(frames)
        tags = {name: frame.tags for name, frame in frames.items()}
        if target is not None:
            tags = valid_tags(tags, self._position(frames), self.root, self.repair_tags)
        x = pd.concat([frame[["text"]] for frame in frames.values()], ignore_index=True)
        targets = {name: column.to_frame("tags") for name, column in tags.items()}
        splits = split_table(
            x, targets, ["tags"], self.root, self.split_seed, self._encoder(target), clusters, documents
        )
        return reset_index(splits)

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["text"])

    def _documents(self, frames: dict[str, pd.DataFrame]) -> tuple[Clusters, list[np.ndarray | None]]:
        """Return the settings of the clusters, and the document of each sentence by split.

        If only some files have documents, each sentence of the others is a cluster.
        """
        exist = any(frame.document.notna().any() for frame in frames.values())
        clusters = Clusters(self.cluster if exist else None, self.split, self.test_clusters)
        for frame in frames.values():
            first = frame.lines.map(min).astype(str)
            frame["document"] = frame.document.where(frame.document.notna(), frame.file + ", line " + first)
        return clusters, [clusters.read(frame, describe(self.root, name, frames)) for name, frame in frames.items()]

    def _position(self, frames: dict[str, pd.DataFrame]) -> Callable[[str, int, int], str]:
        return lambda name, row, word: f"{frames[name].file.iloc[row]}, line {frames[name].lines.iloc[row][word]}"

    def _encoder(self, target: str | None) -> Callable[[pd.DataFrame], tuple[np.ndarray | None, tuple[str, ...]]]:
        return lambda table: (None, ()) if target is None else encode_tags(table.tags, self.root)
