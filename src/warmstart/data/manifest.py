"""Manifests: tables that name sound files, as speech toolkits use them, or hold them, as `datasets` does."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from warmstart.contracts import UserError
from warmstart.data.readers.columns import pick
from warmstart.data.readers.table import read_table
from warmstart.data.sounds import inside, read_sounds

COLUMNS = ("audio", "audio_filepath", "path", "file")  # where sounds are looked for, in this order
SHOWN = 5


def read_manifest(path: Path, column: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sounds that a CSV, TSV, Parquet, JSON or JSON lines file names, and its table.

    Args:
        path: the manifest; the files that it names are in its folder, or below it.
        column: which names them; None for the first of audio, audio_filepath, path and file that there is.

    Raises:
        UserError: the manifest or a sound is missing or broken, or a name leads out of its folder.
    """
    frame = read_table(path)
    return sounds_of(frame, str(path), path.parent, column), frame


def sounds_of(
    frame: pd.DataFrame, where: str, root: Path, column: str | None = None, on_error: str = "raise"
) -> pd.DataFrame:
    """The sounds of a table: paths below `root`, or the content of files; see `read_manifest` and `read_sounds`."""
    return read_sounds(*named_sounds(frame, where, root, column), on_error)


def named_sounds(
    frame: pd.DataFrame, where: str, root: Path, column: str | None = None
) -> tuple[list[Path] | list[bytes], list[str]]:
    """Paths, or the content of files, and what a message calls each; see `read_manifest`."""
    column = column or next((name for name in COLUMNS if name in frame), COLUMNS[0])
    cells = pick(frame, column, where, "data.audio")
    if cells.map(lambda cell: isinstance(cell, dict)).all():
        if all(cell.get("bytes") for cell in cells):
            return [cell["bytes"] for cell in cells], [f"{where}, row {row}" for row in range(1, len(cells) + 1)]
        cells = cells.map(lambda cell: cell.get("path"))
    empty = cells.isna() | cells.astype(str).str.strip().eq("")
    if empty.any():
        raise UserError(f"{where}, row {int(empty.to_numpy().argmax()) + 1}: column {column} names no file")
    paths = [inside(root, str(name)) for name in cells]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise UserError(f"{where} names {len(missing):,} of {len(paths):,} files that are not there: {shown}")
    return paths, [str(path) for path in paths]
