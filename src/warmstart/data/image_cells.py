"""A table's column of images: files by their paths, or encoded bytes, as `datasets` stores them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from warmstart.contracts import UserError
from warmstart.data.pictures import Picture

NAMED = 5


def to_pictures(column: pd.Series, where: str, folder: Path, must_exist: bool) -> list[Picture]:
    """The images of a column, in order.

    A cell is a path relative to `folder`, bytes, or a struct of `bytes` and `path`, of which the bytes come first.

    Args:
        column: the column.
        where: what the user calls the table.
        folder: what no path may leave.
        must_exist: whether missing files are refused here, all at once.

    Raises:
        UserError: a cell is none of these, a path leaves the folder, or files are missing, of which five are named.
    """
    inside = folder.resolve()
    pictures = [_picture(cell, f"{where}, row {row}", column.name, inside) for row, cell in enumerate(column, start=1)]
    if must_exist:
        files = [picture.content for picture in pictures if isinstance(picture.content, Path)]
        missing = [path for path in files if not path.is_file()]
        if missing:
            named = ", ".join(str(path.relative_to(inside)) for path in missing[:NAMED])
            raise UserError(
                f"{where}, column {column.name}: {len(missing):,} of {len(column):,} files are not below {folder}: "
                f"{named}{', ...' if len(missing) > NAMED else ''}"
            )
    return pictures


def _picture(cell: Any, where: str, name: str, inside: Path) -> Picture:
    stored = isinstance(cell, dict)
    if stored:
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(cell, bytes):
        return Picture(f"{where}, column {name}", cell)
    if cell is None:
        raise UserError(f"{where}, column {name}: the cell is empty: give a path, or bytes")
    if not isinstance(cell, str) or not cell.strip():
        raise UserError(f"{where}, column {name}: {str(cell)[:40]!r} is no image: give a path, or bytes")
    path = Path(cell)
    escapes = (path.is_absolute() and not stored) or ".." in path.parts  # `datasets` stores absolute paths
    if escapes or "\0" in cell or not Path(os.path.realpath(inside / path)).is_relative_to(inside):
        raise UserError(f"{where}, column {name}: {cell[:80]} leads out of {inside}: give a path in it")
    return Picture(f"{inside / path} ({where})", inside / path)
