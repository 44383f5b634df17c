"""Convert the cells of a column to names, numbers or texts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.records import EXACT

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
INFINITE = re.compile(r"\s*[+-]?inf(inity)?\s*", re.IGNORECASE)
TRUTH = {"True": 1.0, "true": 1.0, "TRUE": 1.0, "False": 0.0, "false": 0.0, "FALSE": 0.0}
MARKERS = frozenset({"na", "n/a", "nan", "#n/a", "null", "none", "nil", "-", "--", "?", ".", "missing", "unknown"})


def pick(frame: pd.DataFrame, name: str, where: str, option: str = "") -> pd.Series:
    """Return a column of the table `where`; `option` is the setting that its name comes from, for messages.

    Raises:
        UserError: there is no such column; the message lists similar names.
    """
    if name in frame:
        return frame[name]
    near = difflib.get_close_matches(name, list(frame.columns), n=3) or list(frame.columns)[:8]
    setting = f" ({option})" if option else ""
    advice = "; if its cells are separated otherwise, set data.separator=" if len(frame.columns) == 1 else ""
    raise UserError(f"{where} has no column {name}{setting}; similar columns: {', '.join(near)}{advice}")


def to_names(column: pd.Series, where: str) -> np.ndarray:
    """Return the text of each cell (N,), None if it is missing.

    The name depends on the cell only: texts 1, 1.0 and 01 are three names. Integers have the same name in a column of
    integers and in a column of floats, which has missing cells; other types are converted by `str`.

    Raises:
        UserError: a cell is a list or an object.
    """
    cells = column.to_numpy() if column.dtype == np.float32 else column  # items of the Series itself would be float64
    names = np.empty(len(column), dtype=object)
    for position, cell in enumerate(cells):
        if isinstance(cell, str) or cell is None:
            names[position] = cell
        elif isinstance(cell, list | tuple | dict | np.ndarray | bytes):
            raise UserError(
                f"{where}, row {column.index[position]}, column {column.name}: {_short(cell)} is not one name"
            )
        else:
            names[position] = None if pd.isna(cell) else name_of(cell)
    return names


def to_classes(column: pd.Series, numbers: Mapping[str, int], where: str) -> np.ndarray:
    """Return the class index of each cell (N,), by its name.

    Raises:
        UserError: a cell is not in `numbers`.
    """
    y = pd.Series(to_names(column, where)).map(numbers)
    if y.isna().any():
        row = int(y.isna().argmax())
        raise UserError(f"{where}, row {row + 1}: label {column.iloc[row]}, but 0 or 1 is expected")
    return y.to_numpy(dtype=np.int64)


def name_of(cell: Any) -> str:
    """Return the text of one cell, as in `to_names`."""
    is_integer = isinstance(cell, float | np.floating) and float(cell).is_integer() and abs(cell) < EXACT
    return str(int(cell) if is_integer else cell)


def to_numbers(column: pd.Series, where: str, advice: str = "", is_fitted: bool = False) -> np.ndarray:
    """Return a column as float64 (N,), NaN if missing; True and False are 1 and 0.

    Args:
        advice: what to do about a cell that is not a number, for the end of a message.
        is_fitted: whether it is input of a trained model, so that data settings cannot be changed.

    Raises:
        UserError: a cell is not a number, infinite, or overflows float32.
    """
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise UserError(f"{where}, column {column.name}: dates and durations are not numbers{advice}")
    if column.dtype == object:
        values = _parse(column, where, advice, is_fitted)
    else:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    overflow = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
    if len(overflow):
        row = overflow[0]
        what = "infinite" if np.isinf(values[row]) else "too large for 32-bit arithmetic"
        raise UserError(f"{where}, row {column.index[row]}, column {column.name}: the value is {what}")
    return values


def check_targets(column: pd.Series, kind: str | None, where: str) -> None:
    """Check that a column has targets of a kind: names, numbers, or 0 and 1.

    Raises:
        UserError: a cell has another kind.
    """
    if kind == "category":
        to_names(column, where)
    elif kind == "sequence":
        empty = np.flatnonzero([name is not None and not name.strip() for name in to_names(column, where)])
        if len(empty):
            raise UserError(
                f"{where}, row {column.index[empty[0]]}, column {column.name}: the target text is empty "
                f"({len(empty):,} such rows): remove these rows"
            )
    elif kind in ("value", "categories"):
        values = to_numbers(column, where)
        wrong = np.flatnonzero(~np.isnan(values) & ~np.isin(values, (0, 1))) if kind == "categories" else []
        if len(wrong):
            raise UserError(
                f"{where}, row {column.index[wrong[0]]}, column {column.name}: {values[wrong[0]]:g} is not 0 or 1 "
                f"({len(wrong):,} such rows)"
            )


def check_entries(column: pd.Series, where: str, what: str) -> None:
    """Raise UserError if a list has a missing entry; `what` is the name of an entry in the message."""
    missing = np.flatnonzero(column.map(lambda row: pd.isna(list(row)).any(), na_action="ignore").eq(True))
    if len(missing):
        row = column.index[missing[0]]
        raise UserError(f"{where}, row {row}, column {column.name}: {what} is empty ({len(missing):,} such rows)")


def to_texts(column: pd.Series, where: str) -> pd.Series:
    """Check a column of texts or of lists of words; return it with the index 0, 1, ...

    Raises:
        UserError: a text is empty or missing, or the column has other types.
    """
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "string" or column.isna().all():
        empty = column.isna().to_numpy() | np.array([isinstance(cell, str) and not cell.strip() for cell in column])
    elif is_listed(column):
        column = column.map(lambda row: list(map(str, row)), na_action="ignore")
        empty = column.str.len().fillna(0).eq(0).to_numpy()
    else:
        raise UserError(f"{where}, column {column.name}: {kind} values are not text")
    if empty.any():
        rows = np.flatnonzero(empty)
        others = f", as are {len(rows) - 1:,} others" if len(rows) > 1 else ""
        raise UserError(
            f"{where}, row {column.index[rows[0]]}: the text (column {column.name}) is empty{others}: remove it"
        )
    return column.reset_index(drop=True)


def is_listed(column: pd.Series) -> bool:
    """Return whether all cells that are not missing are lists."""
    kinds = set(map(type, column.dropna())) if column.dtype == object else set()
    return bool(kinds) and kinds <= {list, tuple, np.ndarray}


def _parse(column: pd.Series, where: str, advice: str, is_fitted: bool) -> np.ndarray:
    """Convert cells that are texts or of mixed types to numbers."""
    cells = column.to_numpy()
    present = column.notna().to_numpy()
    values = np.full(len(cells), np.nan)
    try:
        values[present] = cells[present].astype(np.float64)
        is_safe = _has_no_python_numbers(cells[present])
    except (ValueError, TypeError, OverflowError):
        is_safe = False
    if not is_safe:
        for position in np.flatnonzero(present):
            values[position] = _number(cells[position], column, position, where, advice, is_fitted)
    return values


def _has_no_python_numbers(cells: np.ndarray) -> bool:
    """Return False if cells may be numbers in Python only, such as 1_000 and nan."""
    text = "".join(map(str, cells))
    return text.isascii() and not any(letter in text for letter in "_nN")


def _number(cell: Any, column: pd.Series, position: int, where: str, advice: str, is_fitted: bool) -> float:
    if isinstance(cell, int | float | Decimal | np.number):
        try:
            return float(cell)
        except OverflowError:
            return np.inf
    if isinstance(cell, str) and (NUMBER.fullmatch(cell) or INFINITE.fullmatch(cell)):
        return float(cell)
    if isinstance(cell, str) and cell.strip() in TRUTH:
        return TRUTH[cell.strip()]
    if isinstance(cell, str) and cell.strip().casefold() in MARKERS:
        added = "empty the cell, or train with" if is_fitted else "add"
        advice = f"; if it stands for a missing value, {added} data.missing_values=[{cell}]"
    raise UserError(
        f"{where}, row {column.index[position]}, column {column.name}: {_short(cell)} is not a number{advice}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
