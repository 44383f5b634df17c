"""Rows of JSON, Parquet and Arrow files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warmstart.core.errors import UserError
from warmstart.core.reading import DEPTH, check_depth
from warmstart.data.readers.files import first_duplicate, read_text

EXACT = 2**53  # floats represent all smaller integers exactly
SURROGATE = re.compile("[\ud800-\udfff]")


def read_records(path: Path) -> pd.DataFrame:
    """Read a JSON list of objects, or a file with an object per line.

    Raises:
        UserError: the file is missing, a line is not a JSON object, or an object has duplicate keys.
    """
    return to_frame(_records(read_text(path), path), path)


def to_frame(rows: dict[int, dict[str, Any]], path: Path) -> pd.DataFrame:
    """Convert records by row number to a table; missing keys become missing cells.

    Raises:
        UserError: a text cannot be encoded.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = {name: [row.get(name) for row in rows.values()] for name in names}
    for cells in columns.values():
        if SURROGATE.search("".join(cell for cell in cells if isinstance(cell, str))):
            row = next(row for row, cell in zip(rows, cells) if isinstance(cell, str) and SURROGATE.search(cell))
            raise UserError(f"{path}, row {row}: an unpaired surrogate, half of a character: remove it")
    return pd.DataFrame(columns, list(rows), dtype=object)


def _records(text: str, path: Path) -> dict[int, dict[str, Any]]:
    """Parse a JSON list of objects, or an object per line; return them by row number."""
    try:
        if text.lstrip().startswith("["):
            rows = dict(enumerate(_parse(text), 1))
        else:
            rows = {n: _parse(line, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()}
        for number, row in rows.items():
            if not isinstance(row, dict):
                raise ValueError(f"entry {number} is not a JSON object")
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return {number: {name: _cell(value) for name, value in row.items()} for number, row in rows.items()}


def _parse(text: str, line: int | None = None) -> Any:
    """Parse JSON, with numbers as texts, except in cells that are lists of objects, such as messages."""
    try:
        found = json.loads(
            text, parse_int=str, parse_float=_shortest, parse_constant=str, object_pairs_hook=_check_duplicates
        )
        if text.count("[") + text.count("{") > DEPTH:
            check_depth(found)
        rows = found if isinstance(found, list) else [found]
        if any(map(_objects, rows)):
            unchanged = json.loads(text)
            for row, own in zip(rows, unchanged if isinstance(found, list) else [unchanged]):
                row |= {name: own[name] for name in _objects(row)}
        return found
    except ValueError as error:
        raise ValueError(f"line {line} is not JSON ({error})" if line else str(error)) from error
    except RecursionError as error:
        raise ValueError(f"{'it' if line is None else f'line {line}'} is nested too deeply") from error


def _objects(row: Any) -> list[str]:
    """Return the names of the cells of a row that are lists of objects."""
    if not isinstance(row, dict):
        return []
    return [name for name, cell in row.items() if isinstance(cell, list) and cell and isinstance(cell[0], dict)]


def _shortest(number: str) -> str:
    """Return the shortest text of a decimal number; unchanged if a float cannot represent it."""
    value = float(number)
    if repr(value) == number and not value.is_integer():
        return number
    try:
        exact = Decimal(number)
        if abs(exact) < EXACT and exact == exact.to_integral_value():
            return str(int(exact))
    except ArithmeticError:  # the exponent is too large
        return number
    short = repr(value)
    return short if math.isfinite(value) and Decimal(short) == exact else number


def _check_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    duplicate = first_duplicate([name for name, _ in pairs])
    if duplicate is not None:
        raise ValueError(f"an object has two values called {duplicate}")
    return dict(pairs)


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, bool) else value


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
