"""Numbers from a user's CSV or Parquet file, with the place of whatever is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from warmstart.contracts import UserError

ABSENT = "(missing)"


def read_frame(path: str | Path, header: bool = True) -> pd.DataFrame:
    """A CSV or Parquet file as a table.

    Raises:
        UserError: the file is missing, unreadable or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: this is a folder, not a file" if path.is_dir() else f"{path}: there is no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, header="infer" if header else None)
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path} has no rows") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8 CSV, or as Parquet"
        ) from error
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
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise UserError(f"{what}, column {column.name}: dates and durations are not numbers{advice}")
    try:
        numbers = pd.to_numeric(column, errors="coerce")
    except OverflowError as error:
        raise UserError(f"{what}, column {column.name}: a value is too large for a number{advice}") from error
    broken = numbers.isna() & column.notna()
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        raise UserError(
            f"{what}, row {row + 1}, column {column.name}: {_short(column.iloc[row])} is not a number{advice}"
        )
    beyond = np.abs(values) > np.finfo(np.float32).max
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        what_is = "infinite" if np.isinf(values[row]) else "too large for 32-bit arithmetic"
        raise UserError(f"{what}, row {row + 1}, column {column.name}: the value is {what_is}")
    return values


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def to_names(column: pd.Series) -> np.ndarray:
    """One column as text (N,); whole numbers read the same whether or not a neighbouring cell was empty."""
    if pd.api.types.is_float_dtype(column):
        present = column.dropna()
        if (present == present.round()).all():
            column = column.astype("Int64")
    return column.astype(object).where(column.notna(), ABSENT).astype(str).to_numpy(dtype=object)


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
