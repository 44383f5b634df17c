"""The one reader of users' tables: CSV and its kind, JSON lines, JSON lists and Parquet.

A cell is read as it stands: what it means is decided by the role of its column (`columns.py`), never by other rows.
Cells of CSV are texts. Numbers of JSON become the text of their value, so that 1 and 1.0 are the same. Parquet keeps
its types. Only an empty cell is missing, and what `data.missing_values` lists.

The index of a table holds row numbers as a user counts them in the file: records after the header, or lines of a file
of JSON lines, from 1 on, blank ones counted.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.arrow import read_names, read_parquet
from warmstart.data.readers.columns import to_names
from warmstart.data.readers.files import check_is_file, first_lines, first_twice, read_text, suffix_of
from warmstart.data.readers.records import read_records

SEPARATED = {".csv": None, ".tsv": "\t"}  # and the separator, where the suffix tells it
JSON = (".json", ".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
TABLES = (*SEPARATED, *JSON, *PARQUET)
SEPARATORS = (",", ";", "\t", "|")  # that a header is searched for, in this order
WHOLE = re.compile(r"(-?\d+)\.0+")  # a whole number with zeros after the point
EXCEL = re.compile(r"sep=(.)")  # a first line by which Excel declares a separator

csv.field_size_limit(2**31 - 1)  # the module refuses cells of more than 131,072 characters otherwise


@dataclass(frozen=True)
class Dialect:
    """How a table is written.

    Args:
        separator: one character between the cells of a text file; None for a tab in .tsv files, else for the one of
            comma, semicolon, tab and bar that the header line has, a comma before others.
        missing: texts of cells that stand for a missing value, as an empty cell does.
    """

    separator: str | None = None
    missing: tuple[str, ...] = ()

    def __post_init__(self):
        separator = {"\\t": "\t", "tab": "\t"}.get(self.separator, self.separator)
        object.__setattr__(self, "separator", separator)
        object.__setattr__(self, "missing", tuple(map(str, self.missing or ())))

    def state(self) -> dict[str, Any]:
        """Return plain JSON from which `Dialect(**state)` is the same."""
        return {**asdict(self), "missing": list(self.missing)}


def is_table(path: Path) -> bool:
    """Whether the suffix is that of a table, with or without .gz after it."""
    return suffix_of(path) in TABLES


def read_table(path: str | Path, dialect: Dialect | None = None, suffix: str | None = None) -> pd.DataFrame:
    """Read a table; see the module.

    Args:
        path: the file.
        dialect: how it is written.
        suffix: what tells the format, where it is not the file's own.

    Raises:
        UserError: the file is missing, broken, of another format, has no rows, a column twice, or a row of more or
            fewer cells than the header.
    """
    path, dialect = Path(path), dialect or Dialect()
    check_is_file(path)
    suffix = suffix or suffix_of(path)
    if suffix in PARQUET:
        frame = read_parquet(path)
    elif suffix in JSON:
        frame = read_records(path)
    else:
        frame = _read_separated(path, dialect, suffix)
    if frame.empty:
        raise UserError(f"{path} has no rows")
    return pd.DataFrame({name: _with_missing(frame[name], dialect.missing, str(path)) for name in frame}, frame.index)


def header_of(path: str | Path, dialect: Dialect | None = None) -> list[str] | None:
    """Return the names of a table's columns; None where the file is no table, or damaged at its start.

    Of a text file the first record is read, of a Parquet file the schema, and of a JSON file every record, since each
    may have columns of its own.
    """
    path, dialect = Path(path), dialect or Dialect()
    suffix = suffix_of(path)
    if not path.is_file() or not is_table(path):
        return None
    if suffix in PARQUET:
        return read_names(path)
    try:
        if suffix in JSON:
            return list(read_records(path))
        lines = first_lines(path)
        first = next(lines)
        declared = EXCEL.fullmatch(first.rstrip())
        if declared or not first.strip():
            first = next(line for line in lines if line.strip())
        separator = dialect.separator or (declared and declared[1]) or _separator(suffix, first)
        reader = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True)
        return _names(next(reader), path)
    except (UserError, OSError, EOFError, ValueError, zlib.error, csv.Error, StopIteration):
        return None


def read_cells(
    path: Path, dialect: Dialect | None = None, suffix: str | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of a text file's rows, its first line too, each with its number: 0 of the first.

    Blank lines are left out and counted.

    Raises:
        UserError: the file is missing, broken or of another format.
    """
    dialect, suffix = dialect or Dialect(), suffix or suffix_of(path)
    if suffix not in SEPARATED and dialect.separator is None:
        known = ", ".join(TABLES)
        raise UserError(f"{path} is not a table: give a file that ends in {known}, or set data.separator=")
    text = read_text(path)
    declared = EXCEL.fullmatch(text.partition("\n")[0].rstrip())
    if declared:
        text = text.partition("\n")[2]
    separator = dialect.separator or (declared and declared[1]) or _separator(suffix, text)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    number = -1  # which blank lines in front of the first row leave as it is
    try:
        for row in reader:
            is_blank = not row or (len(row) == 1 and row[0].isspace())
            number += number >= 0 or not is_blank
            if not is_blank:
                yield number, row
    except csv.Error as error:
        what = "a quote is not closed" if "end of data" in str(error) else str(error)
        raise UserError(
            f"{path}, row {number + 1} (near line {reader.line_num}): {what}: put quotes around the cell and double "
            "each quote in it"
        ) from error


def _read_separated(path: Path, dialect: Dialect, suffix: str) -> pd.DataFrame:
    rows = read_cells(path, dialect, suffix)
    names = _names(next(rows, (0, []))[1], path)
    cells: list[str] = []  # one row after another: a list for each would occupy the garbage collector
    numbers: list[int] = []
    for number, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{path}, row {number}: {len(row)} cells, but the header has {len(names)}. "
                "Put cells that hold the separator in quotes, remove the extra separator, or set data.separator="
            )
        cells += row
        numbers.append(number)
    index = pd.Index(numbers, dtype=np.int64)
    columns = {name: cells[position :: len(names)] for position, name in enumerate(names)}
    return pd.DataFrame({name: pd.Series(column, index, dtype=object) for name, column in columns.items()})


def _names(header: list[str], path: Path) -> list[str]:
    """Return the columns' names; one without a name is called as pandas calls it."""
    names = [name if name.strip() else f"Unnamed: {number}" for number, name in enumerate(header)]
    twice = first_twice(names)
    if twice is not None:
        raise UserError(f"{path}: two columns are called {twice}: rename one")
    return names


def _separator(suffix: str, text: str) -> str:
    """Return the separator that the suffix or the header line tells."""
    declared = SEPARATED.get(suffix)
    if declared is not None:
        return declared
    header = next((line for line in text.split("\n") if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", header)
    return next((separator for separator in SEPARATORS if separator in bare), ",")


def _plain(cell: str) -> str:
    """Return a whole number without the zeros after its point, so that -999 is -999.0; another text as it is."""
    whole = WHOLE.fullmatch(cell)
    return cell if whole is None else whole[1]


def _with_missing(column: pd.Series, missing: tuple[str, ...], where: str) -> pd.Series:
    """Return a column without the cells that are empty, blank or listed."""
    if column.dtype != object:
        return column.mask(np.isin(to_names(column, where), missing)) if missing else column
    absent, cells = {"", *map(_plain, missing)}, column.tolist()
    if missing:
        cells = [_plain(cell) if isinstance(cell, str) else cell for cell in cells]
    try:
        found = [np.fromiter(map(test, cells), bool, len(cells)) for test in (absent.__contains__, str.isspace)]
        gaps = found[0] | found[1]
    except TypeError:  # a cell is no text
        gaps = np.array([isinstance(cell, str) and (cell in absent or cell.isspace()) for cell in cells])
    return column.mask(gaps, None) if gaps.any() else column
