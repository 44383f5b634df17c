"""A table's column of images: files by their paths, or encoded bytes, as `datasets` stores them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.images import Picture

NAMED = 5


def to_pictures(column: pd.Series, where: str, folder: Path, must_exist: bool) -> list[Picture]:
    """The images of a column, in order.

    A cell is a path below `folder`, relative to it or absolute, bytes, or a struct of `bytes` and `path`, of which the
    bytes come first.

    Args:
        column: the column.
        where: what the user calls the table.
        folder: what no path may leave.
        must_exist: whether empty cells and missing files are refused here, the latter all at once.

    Raises:
        UserError: a cell is none of these, a path leaves the folder, or files are missing, of which five are named.
    """
    inside = folder.resolve()
    pictures = [_picture(cell, f"{where}, row {row}", column.name, inside, must_exist) for row, cell in column.items()]
    if must_exist:
        files = [picture.content for picture in pictures if isinstance(picture.content, Path)]
        missing = [path for path in files if not path.is_file()]
        if missing:
            named = ", ".join(os.path.relpath(path, inside) for path in missing[:NAMED])
            raise UserError(
                f"{where}, column {column.name}: {len(missing):,} of {len(column):,} files are not below {folder}: "
                f"{named}{', ...' if len(missing) > NAMED else ''}"
            )
    return pictures


def _picture(cell: Any, where: str, name: str, inside: Path, must_exist: bool) -> Picture:
    if isinstance(cell, dict):
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(cell, bytes):
        return Picture(f"{where}, column {name}", cell)
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        if not must_exist:
            return Picture(f"{where}, column {name}", b"")
        raise UserError(f"{where}, column {name}: the cell is empty: give a path, or bytes")
    if not isinstance(cell, str) or not cell.strip():
        raise UserError(f"{where}, column {name}: {str(cell)[:40]!r} is no image: give a path, or bytes")
    path = Path(cell)
    if ".." in path.parts or "\0" in cell or not Path(os.path.realpath(inside / path)).is_relative_to(inside):
        raise UserError(f"{where}, column {name}: {cell[:80]} leads out of {inside}: give a path in it")
    return Picture(f"{inside / path} ({where})", inside / path)
