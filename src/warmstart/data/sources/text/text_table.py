"""Texts in a table: one row per example, with one target column."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, MissingValues, Seed, Separator
from warmstart.data.clusters import Chosen, Clusters, Split
from warmstart.data.readers.columns import (
    check_entries,
    check_targets,
    is_listed,
    name_of,
    pick,
    to_names,
    to_numbers,
    to_texts,
)
from warmstart.data.readers.splits import describe
from warmstart.data.readers.table import Dialect
from warmstart.data.sources.own_splits import read_own_splits, split_table
from warmstart.data.sources.text.tags import encode_tags, valid_tags
from warmstart.data.splits import encode_labels, reset_index


class TextTable(Source):
    """Classes, real values, tags of words, or texts, depending on the objective.

    The splits train, validation and test of the data set are used; missing ones are split off from the training rows,
    15 % each. Splits named test_<shift> are further test splits. Rows without a target are used in pretraining only.

    Args:
        tokenizer: constructor of the preprocessor.
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder of them by splits, or a hub name.
        text: column of texts; for tags, of lists of words.
        target: target column; for tags, of lists of names, one for each word; for sequence to sequence, of texts.
            Pretraining needs none.
        pair: column of second texts, if any.
        cluster: column of the clusters of rows that are not independent, such as speakers or patients.
        split: row, or cluster to keep each cluster in one split; None for cluster if `cluster` is set, else row.
        test_clusters: clusters of the test split: names, or a part of all, such as 1/3; None for 15 % at random.
        separator: character between cells of a text file; None to detect it in the header.
        missing_values: texts of cells to treat as missing values, besides empty cells.
        config: configuration of a hub data set.
        split_seed: seed of the split.
        repair_tags: whether to replace tags that are no valid sequence of BIO or BIOES by those of the same entities.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset({"category", "value", "tags", "sequence"})
    is_quick: ClassVar = True  # `load` needs no torch

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location,
        text: str,
        target: str | None = None,
        pair: str | None = None,
        cluster: str | int | None = None,
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        separator: Separator | None = None,
        missing_values: MissingValues | None = None,
        config: str | None = None,
        split_seed: Seed = 0,
        repair_tags: bool = False,
    ):
        self.tokenizer, self.root, self.target, self.config = tokenizer, root, target, config
        self.columns = {"text": str(text)} if pair is None else {"text": str(text), "pair": str(pair)}
        self.clusters, self.split_seed = Clusters(cluster, split, test_clusters), split_seed
        self.dialect, self.repair_tags = Dialect(separator, tuple(missing_values or ())), repair_tags

    def load(self, target: str | None) -> Splits:
        """Return texts, or lists of words; the split does not depend on the kind of target.

        Raises:
            UserError: a column is missing, a text is empty, or the targets do not match the objective.
        """
        if target is not None and self.target is None:
            raise UserError("data.target=null: name the column to predict")
        frames = self.frames()
        tables = {name: self._table(frame, describe(self.root, name, frames), target) for name, frame in frames.items()}
        if target == "tags":
            tables = self._with_valid_tags(tables, frames)
        x = pd.concat([table[list(self.columns)] for table in tables.values()], ignore_index=True)
        targets = {name: table[["target"]] for name, table in tables.items()}
        names = [self.clusters.read(frame, describe(self.root, name, frames)) for name, frame in frames.items()]
        encode, columns = functools.partial(self._targets, kind=target), [str(self.target)]
        return reset_index(split_table(x, targets, columns, self.root, self.split_seed, encode, self.clusters, names))

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the table of each split of the data set."""
        return read_own_splits(self.root, self.config, self.dialect)

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=list(self.columns.values()), dialect=self.dialect.state())

    def _table(self, frame: pd.DataFrame, where: str, kind: str | None) -> pd.DataFrame:
        """Return the texts and raw targets of a split, checked here for errors with row numbers of the file."""
        texts = {to: to_texts(pick(frame, name, where, f"data.{to}"), where) for to, name in self.columns.items()}
        table = pd.DataFrame(texts)
        if self.target is None:
            return table.assign(target="")
        column = pick(frame, str(self.target), where, "data.target").astype(object)
        column = column.where(column.notna(), None)
        if kind == "tags":
            self._check_tags(table.text.set_axis(column.index), column, where)
            column = column.map(lambda tags: tags if tags is None else list(map(name_of, tags)))
        elif kind is not None and is_listed(column):
            raise UserError(f"{where}, column {self.target}: these are lists of tags, not one target for each text")
        else:
            check_targets(column, kind, where)
        return table.assign(target=column.reset_index(drop=True))

    def _check_tags(self, words: pd.Series, tags: pd.Series, where: str) -> None:
        for column, name in ((words, self.columns["text"]), (tags, self.target)):
            if not is_listed(column):
                raise UserError(
                    f"{where}, column {name}: tags need lists, of words and of tags (JSON lines or Parquet)"
                )
        check_entries(tags, where, "a tag")
        uneven = np.flatnonzero(tags.notna() & (words.str.len() != tags.str.len()))
        if len(uneven):
            row = tags.index[uneven[0]]
            raise UserError(
                f"{where}, row {row}: {len(words[row])} words but {len(tags[row])} tags ({len(uneven):,} such rows)"
            )

    def _with_valid_tags(
        self, tables: dict[str, pd.DataFrame], frames: dict[str, pd.DataFrame]
    ) -> dict[str, pd.DataFrame]:
        def position(name: str, row: int, word: int) -> str:
            return f"{describe(self.root, name, frames)}, row {frames[name].index[row]}, word {word + 1}"

        parts = {name: table.target for name, table in tables.items()}
        valid = valid_tags(parts, position, self.root, self.repair_tags)
        return {name: table.assign(target=valid[name]) for name, table in tables.items()}

    def _targets(self, table: pd.DataFrame, kind: str | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
        if kind is None:
            return None, ()
        column = table.target
        if kind == "sequence":
            return to_names(column, self.root), ()
        if kind == "value":
            return to_numbers(column, self.root)[:, None], (str(self.target),)
        if kind == "category":
            return encode_labels(to_names(column, self.root))
        return encode_tags(column, self.root)
