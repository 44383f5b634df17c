"""Combine several data sets, each of which is a task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.data.splits import merged

OWN = ("white", "columns", "column", "dialect")  # settings of preprocessors that may differ between sources


class Several(Source):
    """Rows of all sources, evenly mixed; labels have the name of the source as prefix, as in `digits/7`.

    All sources use one preprocessor: that of the pretraining, or a new one with the settings of the first source.

    Args:
        sources: constructors of the sources, by the name of the task.
        tokenizer: settings for the tokenizers of all sources.
    """

    modality: ClassVar = "several"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(self, sources: dict[str, Callable[..., Source]], tokenizer: dict[str, Any] | None = None):
        self.sources = {name: _build(make, tokenizer or {}) for name, make in sources.items()}
        first, *others = self.sources
        self.modality = self.sources[first].modality
        for name in others:
            other = self.sources[name].modality
            if other != self.modality:
                raise UserError(
                    f"data.sources: {first} is {self.modality}, {name} is {other}; all must have the same modality"
                )
        for name, source in self.sources.items():
            if not self.target_kinds <= source.target_kinds:
                raise UserError(f"data.sources.{name} has no classes, which several data sets need")

    def load(self, target: str | None) -> Splits:
        """Return all rows of each part, with class indices (N,) over the labels of all sources.

        Raises:
            UserError: the sources differ in shape, columns or settings of the preprocessor.
        """
        loaded = {name: source.load(target) for name, source in self.sources.items()}
        self._check_alike({name: splits.train.x for name, splits in loaded.items()})
        first = self.preprocessor()
        starts = np.cumsum([0, *(len(splits.labels) for splits in loaded.values())])
        parts: dict[str, list[Rows]] = {"train": [], "validation": [], "test": [], "unlabelled": []}
        shifts: dict[str, list[Rows]] = {name: [] for splits in loaded.values() for name in splits.shifts}
        has_clusters = any(splits.train.cluster is not None for splits in loaded.values())
        for (name, source), splits, start in zip(self.sources.items(), loaded.values(), starts):
            own = source.preprocessor()
            for part, found in {**parts, **shifts}.items():
                rows = getattr(splits, part) if part in parts else splits.shifts.get(part)
                if rows is not None and len(rows):
                    x = first.converted(rows.x, own)
                    y = None if rows.classes is None else rows.classes + start
                    found.append(Rows(x, y, cluster_names(name, part, rows) if has_clusters else None))
        labels = tuple(f"{name}/{label}" for name, splits in loaded.items() for label in splits.labels)
        train, validation, test, spare = (mixed(found) if found else None for found in parts.values())
        return Splits(train, validation, test, labels, spare, {name: mixed(found) for name, found in shifts.items()})

    def preprocessor(self) -> Preprocessor:
        return next(iter(self.sources.values())).preprocessor()

    def _check_alike(self, inputs: dict[str, Any]) -> None:
        """Raise UserError if the training inputs of the sources cannot have the same preprocessor."""
        first, *others = self.sources
        kept, settings = _form(inputs[first]), vars(self.preprocessor())
        for name in others:
            form, own = _form(inputs[name]), vars(self.sources[name].preprocessor())
            if form != kept:
                raise UserError(f"data.sources: rows of {first} have {kept}, rows of {name} {form}: they must be equal")
            for key in settings:
                if key not in OWN and settings[key] != own.get(key):
                    raise UserError(
                        f"data.sources: {key} is {settings[key]} in {first} and {own.get(key)} in {name}; "
                        "they have the same preprocessor, so set equal values"
                    )


def mixed(parts: Sequence[Rows]) -> Rows:
    """Merge the rows of all parts, evenly interleaved."""
    positions = np.concatenate([np.arange(len(part)) / len(part) for part in parts])
    rows = merged(parts).take(np.argsort(positions, kind="stable"))
    return replace(rows, x=rows.x.reset_index(drop=True)) if rows.is_frame else rows


def cluster_names(source: str, part: str, rows: Rows) -> np.ndarray:
    """Return cluster names (N,) that differ between sources; without clusters, each row is a cluster."""
    names = [f"{part} row {number}" for number in range(len(rows))] if rows.cluster is None else rows.cluster
    return np.array([f"{source}/{name}" for name in names], dtype=object)


def _build(make: Callable[..., Source], tokenizer: dict[str, Any]) -> Source:
    """Construct a source, with these settings for its tokenizer, if it has one."""
    own = getattr(make, "keywords", {}).get("tokenizer")
    return make() if own is None else make(tokenizer=functools.partial(own, **tokenizer))


def _form(x: Any) -> str:
    """Return a description of the columns of a table, or of the shape of a row of an array."""
    if isinstance(x, pd.DataFrame):
        return f"the columns {', '.join(sorted(map(str, x.columns)))}"
    return f"the shape {' x '.join(map(str, x.shape[1:]))}"
