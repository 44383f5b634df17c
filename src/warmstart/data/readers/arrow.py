"""Read Parquet files and Arrow tables, with nullable integer columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.files import first_duplicate

INDEX = "__index_level_"  # prefix of the name of an index stored by pandas


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; class indices of files of the `datasets` library are replaced by names.

    Raises:
        UserError: the file is damaged, or two columns have the same name.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).strip().splitlines()[-1]}") from error
    duplicate = first_duplicate(table.column_names)
    if duplicate is not None:
        raise UserError(f"{path}: two columns are called {duplicate}: rename one")
    frame = from_arrow(table)
    if b"huggingface" not in (table.schema.metadata or {}):
        return frame
    import datasets

    return to_class_names(frame, datasets.Features.from_arrow_schema(table.schema))


def read_names(path: Path) -> list[str] | None:
    """Return the column names of a Parquet file; None if it is damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, ValueError, OSError):
        return None
    return [name for name in names if not name.startswith(INDEX)]


def from_arrow(table: Any) -> pd.DataFrame:
    """Convert an Arrow table to pandas, with nullable integers, and texts as objects."""
    import pyarrow as pa

    integer_types = {
        getattr(pa, f"{sign}int{bits}")(): getattr(pd, f"{sign.upper()}Int{bits}Dtype")()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    }
    frame = table.to_pandas(types_mapper=integer_types.get, ignore_metadata=True)
    frame = frame[[name for name in frame if not str(name).startswith(INDEX)]].rename(columns=str)
    for name, kind in frame.dtypes.items():
        if isinstance(kind, pd.CategoricalDtype | pd.StringDtype):
            cells = frame[name].astype(object)
            frame[name] = pd.Series(cells.where(cells.notna(), None), dtype=object)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame


def to_class_names(frame: pd.DataFrame, features: Mapping[str, Any]) -> pd.DataFrame:
    """Replace class indices by class names, as given by the features; -1 becomes None.

    In text files, indices are texts, and cells may have names already.
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
