"""Parquet files and Arrow tables: typed columns, whole numbers kept whole beside missing cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.files import first_twice

INDEX = "__index_level_"  # what begins the name of an index that pandas has stored


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; see `from_arrow` and, for a file that the `datasets` library has written, `named`.

    Raises:
        UserError: it is damaged, or two columns have one name.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).strip().splitlines()[-1]}") from error
    twice = first_twice(table.column_names)
    if twice is not None:
        raise UserError(f"{path}: two columns are called {twice}: rename one")
    frame = from_arrow(table)
    if b"huggingface" not in (table.schema.metadata or {}):
        return frame
    import datasets

    return named(frame, datasets.Features.from_arrow_schema(table.schema))


def read_names(path: Path) -> list[str] | None:
    """Return the names of a Parquet file's columns; None where it is damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, ValueError, OSError):
        return None
    return [name for name in names if not name.startswith(INDEX)]


def from_arrow(table: Any) -> pd.DataFrame:
    """Return an Arrow table as pandas holds it: whole numbers stay whole beside missing ones, texts are objects."""
    import pyarrow as pa

    whole = {
        getattr(pa, f"{sign}int{bits}")(): getattr(pd, f"{sign.upper()}Int{bits}Dtype")()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    }
    frame = table.to_pandas(types_mapper=whole.get, ignore_metadata=True)
    frame = frame[[name for name in frame if not str(name).startswith(INDEX)]].rename(columns=str)
    for name, kind in frame.dtypes.items():
        if isinstance(kind, pd.CategoricalDtype | pd.StringDtype):
            cells = frame[name].astype(object)
            frame[name] = pd.Series(cells.where(cells.notna(), None), dtype=object)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame


def named(frame: pd.DataFrame, features: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table with the names of class numbers, by its features; -1, which is no class, becomes None.

    In text files the numbers are texts, and a cell may hold a name already.
    """
    for name, feature in features.items():
        inner = getattr(feature, "feature", None)
        if hasattr(feature, "names") and pd.api.types.is_integer_dtype(frame[name]):
            names = np.array([*feature.names, None], dtype=object)
            frame[name] = names[frame[name].fillna(-1).astype(int)]
        elif hasattr(feature, "names"):
            names = {"-1": None, **{str(number): label for number, label in enumerate(feature.names)}}
            frame[name] = pd.Series(
                [cell if cell in feature.names else names.get(cell, cell) for cell in frame[name]], frame.index, object
            )
        elif hasattr(inner, "names"):
            names = [*inner.names, None]
            frame[name] = [
                row if row is None or any(isinstance(number, str) for number in row) else [names[n] for n in row]
                for row in frame[name]
            ]
    return frame
