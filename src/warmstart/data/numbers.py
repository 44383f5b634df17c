"""Numbers from a user's CSV or Parquet file, with the place of whatever is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from warmstart.contracts import UserError


def read_frame(path: str | Path, header: bool = True) -> pd.DataFrame:
    """A CSV or Parquet file as a table.

    Raises:
        UserError: the file is missing, unreadable or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        if path.suffix in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, header="infer" if header else None)
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path} has no rows") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).strip().splitlines()[-1]}") from error
    if frame.empty:
        raise UserError(f"{path} has no rows")
    return frame


def to_numbers(column: pd.Series, what: str, advice: str = "") -> np.ndarray:
    """One column as float64, NaN where empty.

    Raises:
        UserError: a value is text or infinite; its row (counted from 1) and column are named.
    """
    numbers = pd.to_numeric(column, errors="coerce")
    broken = numbers.isna() & column.notna()
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        raise UserError(f"{what}, row {row + 1}, column {column.name}: {column.iloc[row]!r} is not a number{advice}")
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise UserError(f"{what}, row {row + 1}, column {column.name}: the value is infinite")
    return values


def read_numbers(path: str, width: int) -> np.ndarray:
    """All columns of a file as float32 (N, width); a first line of names, or of 0, 1, 2, ..., is skipped.

    Raises:
        UserError: a cell is not a finite number, or there are not `width` columns.
    """
    frame = read_frame(path, header=False)
    first = pd.to_numeric(frame.iloc[0], errors="coerce")
    if first.isna().all() or list(first) == list(range(len(first))):
        frame = read_frame(path)
    if frame.shape[1] != width:
        raise UserError(f"{path} has {frame.shape[1]} columns; {width} are expected")
    values = np.stack([to_numbers(frame[name], path) for name in frame], axis=1)
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        raise UserError(f"{path}, row {row + 1}, column {frame.columns[column]}: the value is missing")
    return values.astype(np.float32)
