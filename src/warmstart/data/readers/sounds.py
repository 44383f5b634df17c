"""Sound files to waveforms: one channel, as they were recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile
import soxr

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.readers import sound_container as container
from warmstart.data.readers.threads import map_in_threads

SUFFIXES = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".mp3", ".opus", ".aiff", ".aif", ".aifc"})
LISTED = 20
LONGEST = 3600.0  # seconds that are read at all
BLOCK = 2**20  # samples read at a time
RESERVOIR = 2.0  # seconds before a piece of an MP3 file that are decoded too, since its frames use bits of earlier ones
ROUNDING = 0.1  # seconds that a piece may end after its recording
FAILURES = (soundfile.SoundFileError, OSError, ValueError)


class Piece(NamedTuple):
    """What is read of a recording, in seconds; no duration means to its end."""

    offset: float = 0.0
    duration: float | None = None

    def __str__(self) -> str:
        end = "the end" if self.duration is None else f"{self.offset + self.duration:g} s"
        return f"{self.offset:g} s to {end}"


WHOLE = Piece()


def read_sounds(
    sounds: Sequence[Path | bytes],
    names: Sequence[str],
    on_error: str = "raise",
    pieces: Sequence[Piece] | None = None,
) -> pd.DataFrame:
    """A table with the columns audio (a waveform (S,), float32 from -1 to 1), rate (Hz) and file, read in parallel.

    Recordings that end too early are read up to where they end, with a warning that names them.

    Args:
        sounds: paths, or the content of files.
        names: what a message calls each.
        on_error: raise, or skip, which leaves broken sounds out and lists them; the table's index says which are left.
        pieces: what is read of each; None for all.

    Raises:
        UserError: one is not a readable sound, is empty, silent or too long, or holds values that are no numbers.
    """
    pieces = [WHOLE] * len(sounds) if pieces is None else pieces
    remarks: dict[int, str] = {}

    def read(row: int) -> tuple[np.ndarray, int] | UserError:
        try:
            values, rate, remark = read_sound(sounds[row], names[row], pieces[row])
        except UserError as error:
            return error
        if remark:
            remarks[row] = f"{names[row]}: {remark}"
        return values, rate

    found = map_in_threads(read, range(len(sounds)))
    broken = [error for error in found if isinstance(error, UserError)]
    if broken and (on_error == "raise" or len(broken) == len(found)):
        raise broken[0]
    if broken:
        _list(f"left out {len(broken):,} of {len(found):,} sounds", list(map(str, broken)))
    if remarks:
        cut = f"warning: {len(remarks):,} of {len(found):,} sounds are incomplete and are read up to where they end"
        _list(cut, [remarks[row] for row in sorted(remarks)])
    kept = [row for row, one in enumerate(found) if not isinstance(one, UserError)]
    audio = pd.Series([found[row][0] for row in kept], dtype=object, index=kept)
    return pd.DataFrame({"audio": audio, "rate": [found[row][1] for row in kept], "file": [names[row] for row in kept]})


def _list(what: str, lines: list[str]) -> None:
    screen.say(f"{what}:", style="yellow")
    for line in lines[:LISTED]:
        screen.say(f"  {line}", style="yellow")
    if len(lines) > LISTED:
        screen.say(f"  and {len(lines) - LISTED:,} more", style="yellow")


def read_sound(sound: Path | bytes, name: str, piece: Piece = WHOLE) -> tuple[np.ndarray, int, str | None]:
    """The waveform (S,), channels averaged, its rate, and in what way the file is incomplete; see `read_sounds`."""
    source: object = sound
    if isinstance(sound, Path) and not sound.is_file():
        raise UserError(f"{name}: there is no such file")
    try:
        source, remark = container.checked(sound)
        with soundfile.SoundFile(source) as file:
            rate, promised = file.samplerate, file.frames
            longest = round(LONGEST * rate)
            start = min(round(piece.offset * rate), promised)
            wanted = promised - start if piece.duration is None else round(piece.duration * rate)
            count = min(wanted, promised - start)
            if count > longest and promised < container.UNKNOWN:
                raise UserError(f"{name} is {count / rate:,.0f} s long: cut it into shorter pieces")
            before = min(start, round(RESERVOIR * rate)) if file.format == "MP3" else 0
            file.seek(start - before)
            values = _decoded(file, min(count, longest + 1) + before)[before:]
    except FAILURES as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].removeprefix(f"Error opening {source!r}: ").strip()
        if not reason or reason.startswith("File does not exist"):  # what libsndfile says of an MP3 file without frames
            reason = "nothing in it can be decoded"
        raise UserError(f"{name} is not a readable sound: {reason}") from error
    if len(values) > longest:
        raise UserError(f"{name} is longer than {LONGEST:,.0f} s: cut it into shorter pieces")
    if piece != WHOLE:
        _check_piece(piece, start, wanted, len(values), rate, name)
    if piece.duration is None and len(values) < count and promised < container.UNKNOWN:
        remark = remark or f"it ends after {len(values) / rate:,.2f} of {promised / rate:,.2f} s"
    _check_samples(values, name)
    return values, rate, remark


def _check_samples(values: np.ndarray, name: str) -> None:
    if not len(values):
        raise UserError(f"{name} holds no sound: it has no samples")
    if not np.isfinite(values).all():
        raise UserError(f"{name} holds samples that are no numbers: save it again")
    if not values.any():
        raise UserError(f"{name} is silent: every sample is zero")


def _decoded(file: soundfile.SoundFile, count: int) -> np.ndarray:
    """At most `count` samples, channels averaged: as many as can be decoded.

    Raises:
        SoundFileError: none can be.
    """
    blocks, left = [], count
    while left > 0:
        block = np.full((min(left, BLOCK), file.channels), np.nan, dtype=np.float32)
        try:
            found, failed = len(file.read(out=block)), False
        except soundfile.SoundFileError:
            found, failed = int((~np.isnan(block)).all(1).argmin()), True  # what was decoded until then is in it
            if not found and not blocks:
                raise
        blocks.append(block[:found].mean(1))
        left -= found
        if failed or found < len(block):
            break
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _check_piece(piece: Piece, start: int, wanted: int, found: int, rate: int, name: str) -> None:
    """Refuse a piece that is not in its recording, rounding aside."""
    end = (start + found) / rate
    if piece.offset * rate > start + 1 or not found:
        raise UserError(f"{name}: the offset of {piece.offset:g} s is beyond the end of the recording, {end:.2f} s")
    if piece.duration is not None and wanted - found > ROUNDING * rate:
        raise UserError(
            f"{name}: {piece.offset:g} s and a duration of {piece.duration:g} s end after the recording, {end:.2f} s; "
            "give seconds, or remove the column duration"
        )


def resampled(values: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """A waveform at another rate, band-limited, by soxr."""
    return values if rate == wanted else soxr.resample(values, rate, wanted)


def inside(root: Path, name: str, where: str) -> Path:
    """The file of this name below a folder.

    Raises:
        UserError: it is elsewhere, by `..`, an absolute path or a link.
    """
    path = root / name  # which is `name`, where that is absolute
    if "\0" in name or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise UserError(f"{where}: {name[:80]!r} is not below {root}: a manifest names files in its own folder")
    return path
