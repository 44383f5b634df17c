"""Manifests: tables that name sound files, as speech toolkits use them, or hold them, as `datasets` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.readers.columns import pick, to_numbers
from warmstart.data.readers.sounds import FULL, Piece, inside, read_sounds
from warmstart.data.readers.table import Dialect, read_table

COLUMNS = ("audio", "audio_filepath", "path", "file")  # where sounds are looked for, in this order
PIECE = ("offset", "duration")  # columns of seconds, which say what is read of a recording
OTHER_PIECE = ("start", "end", "start_time", "end_time", "begin")  # which may be seconds, samples or words
SHOWN = 5


def read_manifest(
    path: Path, column: str | None = None, on_error: str = "raise", dialect: Dialect | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sounds that a CSV, TSV, Parquet, JSON or JSON lines file names, and its table.

    Args:
        path: the manifest; the files that it names are in its folder, or below it.
        column: which names them; None for the first of audio, audio_filepath, path and file that there is.
        on_error: raise, or skip, which leaves out what cannot be read.
        dialect: how the manifest is written.

    Raises:
        UserError: the manifest or a sound is missing or broken, or a name leads out of its folder.
    """
    frame = read_table(path, dialect)
    return sounds_of(frame, str(path), path.parent, column, on_error), frame


def sounds_of(
    frame: pd.DataFrame, where: str, root: Path, column: str | None = None, on_error: str = "raise"
) -> pd.DataFrame:
    """The sounds of a table: paths below `root`, or the content of files; see `read_manifest` and `read_sounds`.

    The index holds positions in the table. Columns offset and duration, in seconds, cut pieces from recordings.
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
    cut = sum(piece != FULL for piece in kept)
    given = " and ".join(name for name in PIECE if name in frame)
    screen.say(f"{where}: the columns {given} say what is read of {cut:,} of {len(kept):,} recordings")
    files = [names[position] + ("" if piece == FULL else f", {piece}") for position, piece in zip(found.index, kept)]
    return found.assign(
        file=files,
        source=[names[n] for n in found.index],
        offset=[p.offset for p in kept],
        duration=[p.duration for p in kept],
    )


def pieces_of(frame: pd.DataFrame, where: str) -> list[Piece] | None:
    """What is read of each row's recording, by the columns offset and duration; None where there are neither.

    Raises:
        UserError: one is no number, an offset is below 0, or a duration not above it; the row is named.
    """
    if other := [name for name in OTHER_PIECE if name in frame]:
        advice = "where these are seconds, call them offset and duration (from the offset on)"
        screen.say(f"warning: {where}: the columns {', '.join(other)} are not read: {advice}", style="yellow")
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
    """Paths, or the content of files, and what a message calls each; see `read_manifest`.

    Args:
        frame: the table.
        where: what the user calls it.
        root: what no path may leave.
        column: which names the sounds.
        must_exist: whether empty cells and missing files are refused here, all at once.
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
        shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise UserError(f"{where} names {len(missing):,} of {len(sounds):,} files that are not there: {shown}")
    return sounds, names
