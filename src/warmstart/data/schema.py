"""Which columns a trained model needs, and whether a table has them; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from warmstart.data.readers.splits import columns_of
from warmstart.data.readers.table import Dialect

BOUND = ("table",)  # kinds of preprocessors by whose columns a backbone is bound, in further training too


def lacking(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], list[str]]:
    """Return a function of a run's record: the columns that the run needs and this config's table lacks.

    The table is what `input` names, or else the data. Nothing is lacking where the columns cannot be told.
    """
    predicts = config.get("input") is not None
    data = config.get("data") or {}
    root = config.get("input") if predicts else data.get("root")
    dialect = Dialect(data.get("separator")) if data.get("separator") else None
    columns = None if root is None else columns_of(str(root), dialect)
    fills = predicts and data.get("missing_columns") == "fill"

    def missing(record: Mapping[str, Any]) -> list[str]:
        inputs = (record.get("data") or {}).get("inputs") or {}
        needed = inputs.get("columns") or []
        if columns is None or not (predicts or inputs.get("kind") in BOUND):
            return []
        absent = [name for name in needed if name not in columns]
        return [] if fills and len(absent) < len(needed) else absent

    return missing
