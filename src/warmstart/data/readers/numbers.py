"""Read tables of numbers, such as vectors or pixels, with or without a header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.data.readers.columns import NUMBER, to_numbers
from warmstart.data.readers.files import check_is_file, suffix_of
from warmstart.data.readers.table import SEPARATED, Dialect, read_cells, read_table


def read_numbers(path: str | Path, width: int, dialect: Dialect | None = None) -> Inputs:
    """Read all columns of a table as float32 (N, width); a first line of names or of 0, 1, 2, ... is a header.

    Raises:
        UserError: a cell is not a finite number, or there are not `width` columns.
    """
    path, dialect = Path(path), dialect or Dialect()
    check_is_file(path)
    if suffix_of(path) in SEPARATED or dialect.separator is not None:
        frame = _without_header(path, dialect)
    else:
        frame = read_table(path, dialect)
    if frame.shape[1] != width:
        raise UserError(f"{path} has {frame.shape[1]} columns, but {width} are expected")
    values = np.stack([to_numbers(frame[name], str(path)) for name in frame], axis=1)
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        raise UserError(f"{path}, row {frame.index[row]}, column {frame.columns[column]}: the value is missing")
    return Inputs(values.astype(np.float32), frame.index.tolist())


def _without_header(path: Path, dialect: Dialect) -> pd.DataFrame:
    """Read a text file; its first line is a header if it has no numbers, or is 0, 1, 2, ..."""
    rows = list(read_cells(path, dialect))
    first = rows[0][1] if rows else []
    if not any(map(NUMBER.fullmatch, first)) or first == [str(number) for number in range(len(first))]:
        return read_table(path, dialect)
    for number, row in rows:
        if len(row) != len(first):
            raise UserError(f"{path}, row {number + 1}: {len(row)} cells, but the first row has {len(first)}")
    cells = [[None if not cell.strip() or cell in dialect.missing else cell for cell in row] for _, row in rows]
    return pd.DataFrame(cells, index=[number + 1 for number, _ in rows], dtype=object)
