"""Rows as delimited text, JSON lines and Parquet."""

from __future__ import annotations

import csv as csv_library
import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pandas as pd

Rows = list[dict[str, Any]]


def csv(rows: Rows, separator: str = ",", quoted: bool = False, end: str = "\n") -> str:
    """Separated cells with a header; None is an empty cell."""
    file = io.StringIO()
    style = csv_library.QUOTE_ALL if quoted else csv_library.QUOTE_MINIMAL
    writer = csv_library.DictWriter(file, list(rows[0]), delimiter=separator, quoting=style, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def json_lines(rows: Rows) -> str:
    """One object on each line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows: Rows, **types: Any) -> bytes:
    """A Parquet file, with the types of pandas that are given by column."""
    file = io.BytesIO()
    pd.DataFrame(rows).astype(types).to_parquet(file)
    return file.getvalue()


def zipped(text: str) -> bytes:
    """The same, by gzip."""
    return gzip.compress(text.encode(), mtime=0)


def changed(rows: Rows, row: int, **cells: Any) -> Rows:
    """The rows with other cells in one of them, counted from 1."""
    return [{**one, **cells} if number == row else one for number, one in enumerate(rows, 1)]


def mapped(rows: Rows, column: str, function: Callable[[int], Any]) -> Rows:
    """The rows with another column, made from the row's number from 0 on."""
    return [{**one, column: function(number)} for number, one in enumerate(rows)]


def line_added(text: str, row: int, ending: str) -> str:
    """Separated cells with something added to the line of one row, counted from 1."""
    lines = text.split("\n")
    lines[row] += ending
    return "\n".join(lines)
