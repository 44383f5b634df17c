"""Read a column of images: paths, or encoded bytes, as in the `datasets` library."""

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
    """Return the images of a column, in order.

    A cell is a relative or absolute path below `folder`, bytes, or a struct with `bytes` or else `path`.

    Args:
        column: column of images.
        where: name of the table in messages.
        folder: folder that all paths must be in.
        must_exist: whether to raise an error for empty cells and missing files.

    Raises:
        UserError: a cell is invalid, a path is outside of the folder, or files are missing.
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
        raise UserError(f"{where}, column {name}: {str(cell)[:40]!r} is not an image: give a path, or bytes")
    path = Path(cell)
    if ".." in path.parts or "\0" in cell or not Path(os.path.realpath(inside / path)).is_relative_to(inside):
        raise UserError(f"{where}, column {name}: {cell[:80]} is outside of {inside}: give a path inside")
    return Picture(f"{inside / path} ({where})", inside / path)
