"""Read tables: CSV, TSV, JSON lines, JSON lists and Parquet.

Types are not inferred: the role of a column (`columns.py`) determines how its cells are converted. Cells of CSV are
texts. Numbers of JSON become normalized texts, so that 1 and 1.0 are equal. Parquet keeps its types. Missing cells are
empty cells and those in `data.missing_values`.

The index of a table has the row numbers of the file, from 1: records after the header, or lines of a JSON lines file,
including blank lines."""

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

from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.data.readers.columns import NUMBER, to_names, to_numbers
from warmstart.data.readers.files import check_is_file, first_duplicate, first_lines, read_text, suffix_of
from warmstart.data.readers.records import read_names, read_parquet, read_records

SEPARATED = {".csv": None, ".tsv": "\t"}  # extension and separator, None if it is detected
JSON = (".json", ".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
TABLES = (*SEPARATED, *JSON, *PARQUET)
SEPARATORS = (",", ";", "\t", "|")  # separators to search for in a header, in this order
INTEGER = re.compile(r"(-?\d+)\.0+")  # an integer with zeros after the decimal point
EXCEL = re.compile(r"sep=(.)")  # first line in which Excel declares a separator

csv.field_size_limit(2**31 - 1)  # the default limit is 131,072 characters


@dataclass(frozen=True)
class Dialect:
    """Format of a table.

    Args:
        separator: character between cells of a text file; None for a tab in .tsv files, else for the first of comma,
            semicolon, tab and bar that occurs in the header.
        missing: texts of cells to treat as missing values, besides empty cells.
    """

    separator: str | None = None
    missing: tuple[str, ...] = ()

    def __post_init__(self):
        separator = {"\\t": "\t", "tab": "\t"}.get(self.separator, self.separator)
        object.__setattr__(self, "separator", separator)
        object.__setattr__(self, "missing", tuple(map(str, self.missing or ())))

    def state(self) -> dict[str, Any]:
        """Return the arguments of an equal `Dialect` as plain JSON."""
        return {**asdict(self), "missing": list(self.missing)}


def is_table(path: Path) -> bool:
    """Return whether the extension is that of a table, with or without .gz."""
    return suffix_of(path) in TABLES


def read_table(path: str | Path, dialect: Dialect | None = None, suffix: str | None = None) -> pd.DataFrame:
    """Read a table; see the module. `suffix` is the extension of its format, if the file has another one.

    Raises:
        UserError: the file is missing, broken, of another format, has no rows, duplicate columns, or a row with more or
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
    """Return the column names of a table; None if the file is not a table, or is damaged.

    Reads the first record of a text file, the schema of a Parquet file, or all records of a JSON file.
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
    """Yield the number and the cells of each row of a text file, from row 0, the first line.

    Blank lines are skipped, but counted.

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
    number = -1  # blank lines before the first row are not counted
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
    cells: list[str] = []  # of all rows: a list per row would slow down the garbage collector
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
    """Return the column names; an empty name becomes `Unnamed: <number>`, as in pandas."""
    names = [name if name.strip() else f"Unnamed: {number}" for number, name in enumerate(header)]
    duplicate = first_duplicate(names)
    if duplicate is not None:
        raise UserError(f"{path}: two columns are called {duplicate}: rename one")
    return names


def _separator(suffix: str, text: str) -> str:
    """Return the separator of the extension, or detect it in the header."""
    declared = SEPARATED.get(suffix)
    if declared is not None:
        return declared
    header = next((line for line in text.split("\n") if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", header)
    return next((separator for separator in SEPARATORS if separator in bare), ",")


def _normalize(cell: str) -> str:
    """Remove zeros after the decimal point of an integer, so that -999.0 equals -999; other texts are unchanged."""
    integer = INTEGER.fullmatch(cell)
    return cell if integer is None else integer[1]


def _with_missing(column: pd.Series, missing: tuple[str, ...], where: str) -> pd.Series:
    """Replace cells that are empty, blank or in `missing` by None."""
    if column.dtype != object:
        return column.mask(np.isin(to_names(column, where), missing)) if missing else column
    absent, cells = {"", *map(_normalize, missing)}, column.tolist()
    if missing:
        cells = [_normalize(cell) if isinstance(cell, str) else cell for cell in cells]
    try:
        found = [np.fromiter(map(test, cells), bool, len(cells)) for test in (absent.__contains__, str.isspace)]
        is_missing = found[0] | found[1]
    except TypeError:  # a cell is not a text
        is_missing = np.array([isinstance(cell, str) and (cell in absent or cell.isspace()) for cell in cells])
    return column.mask(is_missing, None) if is_missing.any() else column


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
