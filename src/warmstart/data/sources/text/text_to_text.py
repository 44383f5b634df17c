"""Pairs of texts in a table, for sequence to sequence: an input and a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pandas as pd

from warmstart.core.protocols import Preprocessor
from warmstart.core.ranges import Location, MissingValues, Seed, Separator
from warmstart.data.clusters import Chosen, Split
from warmstart.data.sources.text.rewriting import make_rewriting
from warmstart.data.sources.text.text_table import TextTable

MADE = "made sentences"  # called so in messages


class TextToText(TextTable):
    """Texts with target texts, such as documents with summaries; the splits are those of `TextTable`.

    Args:
        tokenizer: constructor of the preprocessor.
        root: as for `TextTable`; None for made sentences (data.sources.text.rewriting).
        text: column of inputs.
        target: column of target texts.

    The other settings are those of `TextTable`.
    """

    target_kinds: ClassVar = frozenset({"sequence"})

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location | None = None,
        text: str = "text",
        target: str = "target",
        pair: str | None = None,
        cluster: str | int | None = None,
        split: Split | None = None,
        test_clusters: Chosen | None = None,
        separator: Separator | None = None,
        missing_values: MissingValues | None = None,
        config: str | None = None,
        split_seed: Seed = 0,
    ):
        self.is_made = root is None
        super().__init__(
            tokenizer,
            root or MADE,
            text,
            target,
            pair,
            cluster,
            split,
            test_clusters,
            separator,
            missing_values,
            config,
            split_seed,
        )

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the table of each split of the data set, or made sentences."""
        return {"train": make_rewriting()} if self.is_made else super().frames()
