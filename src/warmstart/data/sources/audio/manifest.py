"""Read manifests of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.readers.columns import pick, to_numbers
from warmstart.data.readers.files import listed
from warmstart.data.readers.sounds import FULL, Piece, inside, read_sounds
from warmstart.data.readers.table import Dialect, read_table

COLUMNS = ("audio", "audio_filepath", "path", "file")  # default columns of sounds, in order of preference
PIECE = ("offset", "duration")  # columns in seconds that select a part of a recording
OTHER_PIECE = ("start", "end", "start_time", "end_time", "begin")  # columns that may be seconds, samples or words


def read_manifest(
    path: Path, column: str | None = None, on_error: str = "raise", dialect: Dialect | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the sounds of a manifest (CSV, TSV, Parquet, JSON or JSON lines); return them and the manifest.

    Args:
        path: manifest; its files must be below its folder.
        column: column of sounds; None for the first of audio, audio_filepath, path and file.
        on_error: raise, or skip sounds that cannot be read.
        dialect: format of the manifest.

    Raises:
        UserError: the manifest or a sound is missing or broken, or a path is outside of the folder.
    """
    frame = read_table(path, dialect)
    return sounds_of(frame, str(path), path.parent, column, on_error), frame


def sounds_of(
    frame: pd.DataFrame, where: str, root: Path, column: str | None = None, on_error: str = "raise"
) -> pd.DataFrame:
    """Read the sounds of a table: paths below `root`, or the content of files; see `read_manifest` and `read_sounds`.

    The index has the positions in the table. The columns offset and duration, in seconds, select parts of recordings.
    """
    sounds, names = named_sounds(frame, where, root, column, must_exist=on_error == "raise")
    pieces = pieces_of(frame, where)
    rows = [
        name if isinstance(sound, bytes) else f"{name} ({where}, row {row})"
        for sound, name, row in zip(sounds, names, frame.index)
    ]
    found = read_sounds(sounds, rows, on_error, pieces)
    if pieces is None:
        return found.assign(file=[names[position] for position in found.index])
    kept = [pieces[position] for position in found.index]
    count = sum(piece != FULL for piece in kept)
    given = " and ".join(name for name in PIECE if name in frame)
    screen.say(f"{where}: a part of {count:,} of {len(kept):,} recordings is read (columns {given})")
    files = [names[position] + ("" if piece == FULL else f", {piece}") for position, piece in zip(found.index, kept)]
    return found.assign(
        file=files,
        source=[names[n] for n in found.index],
        offset=[p.offset for p in kept],
        duration=[p.duration for p in kept],
    )


def pieces_of(frame: pd.DataFrame, where: str) -> list[Piece] | None:
    """Return the part of each recording to read, by the columns offset and duration; None without these columns.

    Raises:
        UserError: a value is not a number, an offset is below 0, or a duration is not above 0.
    """
    if other := [name for name in OTHER_PIECE if name in frame]:
        advice = "if these are seconds, use columns offset and duration instead"
        screen.say(f"warning: {where}: the columns {', '.join(other)} are ignored: {advice}", style="yellow")
    if not any(name in frame and frame[name].notna().any() for name in PIECE):
        return None
    offset, duration = (
        to_numbers(frame[name], where) if name in frame else np.full(len(frame), np.nan) for name in PIECE
    )
    wrong = np.flatnonzero((offset < 0) | (duration <= 0))
    if len(wrong):
        row = wrong[0]
        raise UserError(
            f"{where}, row {frame.index[row]}: offset {offset[row]:g} and duration {duration[row]:g}: give seconds, an "
            "offset of 0 or more and a duration above 0, or leave the cell empty"
        )
    return [
        Piece(0.0 if np.isnan(start) else float(start), None if np.isnan(length) else float(length))
        for start, length in zip(offset, duration)
    ]


def named_sounds(
    frame: pd.DataFrame, where: str, root: Path, column: str | None = None, must_exist: bool = True
) -> tuple[list[Path | bytes], list[str]]:
    """Return paths or file contents, and their names in messages; see `read_manifest`.

    Args:
        root: folder that all paths must be in.
        must_exist: whether to raise an error for empty cells and missing files.
    """
    column = column or next((name for name in COLUMNS if name in frame), COLUMNS[0])
    cells = pick(frame, column, where, "data.audio")
    sounds: list[Path | bytes] = []
    names, empty, missing = [], [], []
    for row, cell in cells.items():
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            sound, name = cell, f"{where}, row {row}"
        elif isinstance(cell, list | np.ndarray):
            raise UserError(f"{where}, row {row}, column {column}: this is a list: give a path, or the bytes of a file")
        elif pd.isna(cell) or not str(cell).strip():
            sound, name = b"", f"{where}, row {row}, column {column}"
            empty.append(row)
        else:
            sound = inside(root, str(cell), f"{where}, row {row}")
            name = str(sound)
            missing += [] if sound.is_file() else [name]
        sounds.append(sound)
        names.append(name)
    if must_exist and empty:
        others = f", as do {len(empty) - 1:,} others" if len(empty) > 1 else ""
        raise UserError(f"{where}, row {empty[0]}: column {column} names no file{others}")
    if must_exist and missing:
        shown = listed(missing)
        raise UserError(f"{where} names {len(missing):,} of {len(sounds):,} files that do not exist: {shown}")
    return sounds, names
