"""Which columns a trained model needs, and whether a table has them; nothing here imports torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from warmstart.data.readers.splits import columns_of
from warmstart.data.readers.table import Dialect, header_of

SQUAD = {"data", "version"}  # of a file as SQuAD publishes them, whose columns are further inside
BOUND = ("table",)  # kinds of preprocessors by whose columns a backbone is bound, in further training too


def lacking(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], list[str]]:
    """Return a function of a run's record: the columns that the run needs and this config's table lacks.

    The table is what `input` names, written as the run's own tables are, or else the data. It is read once the first
    record asks for it. Nothing is lacking where the columns are unknown.
    """
    predicts = config.get("input") is not None
    data = config.get("data") or {}
    root = config.get("input") if predicts else data.get("root")
    fills = predicts and data.get("missing_columns") == "fill"

    @functools.cache
    def columns(separator: str | None) -> list[str] | None:
        if root is None:
            return None
        find = header_of if predicts else columns_of  # a folder to predict for holds texts, images or sounds
        found = find(str(root), Dialect(separator))
        return None if found is not None and set(found) <= SQUAD else found

    def missing(record: Mapping[str, Any]) -> list[str]:
        inputs = (record.get("data") or {}).get("inputs") or {}
        needed = inputs.get("columns") or []
        if not needed or not (predicts or inputs.get("kind") in BOUND):
            return []
        found = columns(inputs.get("separator") if predicts else data.get("separator"))
        absent = [] if found is None else [name for name in needed if name not in found]
        return [] if fills and len(absent) < len(needed) else absent

    return missing
