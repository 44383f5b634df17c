"""Read sound files as single-channel waveforms."""

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
from warmstart.data.readers.files import map_in_threads

SUFFIXES = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".mp3", ".opus", ".aiff", ".aif", ".aifc"})
LISTED = 20
LONGEST = 3600.0  # maximum length in seconds
BLOCK = 2**20  # samples read at a time
RESERVOIR = 2.0  # seconds before a piece of an MP3 file to decode too, because frames use bits of earlier ones
ROUNDING = 0.1  # tolerance in seconds for the end of a piece
FAILURES = (soundfile.SoundFileError, OSError, ValueError)


class Piece(NamedTuple):
    """A part of a recording, in seconds; without a duration, to its end."""

    offset: float = 0.0
    duration: float | None = None

    def __str__(self) -> str:
        end = "the end" if self.duration is None else f"{self.offset + self.duration:g} s"
        return f"{self.offset:g} s to {end}"


FULL = Piece()


def read_sounds(
    sounds: Sequence[Path | bytes], names: Sequence[str], on_error: str = "raise", pieces: Sequence[Piece] | None = None
) -> pd.DataFrame:
    """Read sounds in parallel; return a table with the columns audio (waveform (S,), float32), rate (Hz) and file.

    Incomplete recordings are read to their end, with a warning.

    Args:
        on_error: raise, or skip, which omits broken sounds and lists them; the index has the positions in `sounds`.
        pieces: part of each sound to read; None for complete sounds.

    Raises:
        UserError: a sound cannot be read, is empty, silent or too long, or has samples that are not finite.
    """
    pieces = [FULL] * len(sounds) if pieces is None else pieces
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
        _list(f"skipped {len(broken):,} of {len(found):,} sounds", list(map(str, broken)))
    if remarks:
        what = f"warning: {len(remarks):,} of {len(found):,} sounds are incomplete and are read to their end"
        _list(what, [remarks[row] for row in sorted(remarks)])
    kept = [row for row, one in enumerate(found) if not isinstance(one, UserError)]
    audio = pd.Series([found[row][0] for row in kept], dtype=object, index=kept)
    return pd.DataFrame({"audio": audio, "rate": [found[row][1] for row in kept], "file": [names[row] for row in kept]})


def _list(what: str, lines: list[str]) -> None:
    screen.say(f"{what}:", style="yellow")
    for line in lines[:LISTED]:
        screen.say(f"  {line}", style="yellow")
    if len(lines) > LISTED:
        screen.say(f"  and {len(lines) - LISTED:,} more", style="yellow")


def read_sound(sound: Path | bytes, name: str, piece: Piece = FULL) -> tuple[np.ndarray, int, str | None]:
    """Return the waveform (S,), averaged over channels, its rate, and why the file is incomplete, or None."""
    source: object = sound
    if isinstance(sound, Path) and not sound.is_file():
        raise UserError(f"{name}: there is no such file")
    try:
        source, remark = container.repair(sound)
        with soundfile.SoundFile(source) as file:
            rate, declared = file.samplerate, file.frames
            longest = round(LONGEST * rate)
            start = min(round(piece.offset * rate), declared)
            requested = declared - start if piece.duration is None else round(piece.duration * rate)
            count = min(requested, declared - start)
            if count > longest and declared < container.UNKNOWN:
                raise UserError(f"{name} is {count / rate:,.0f} s long: split it")
            before = min(start, round(RESERVOIR * rate)) if file.format == "MP3" else 0
            file.seek(start - before)
            values = _decode(file, min(count, longest + 1) + before)[before:]
    except FAILURES as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].removeprefix(f"Error opening {source!r}: ").strip()
        # The message of libsndfile for an MP3 file without frames.
        if not reason or reason.startswith("File does not exist"):
            reason = "no part of it can be decoded"
        raise UserError(f"{name} is not a readable sound: {reason}") from error
    if len(values) > longest:
        raise UserError(f"{name} is longer than {LONGEST:,.0f} s: split it")
    if piece != FULL:
        _check_piece(piece, start, requested, len(values), rate, name)
    if piece.duration is None and len(values) < count and declared < container.UNKNOWN:
        remark = remark or f"it ends after {len(values) / rate:,.2f} of {declared / rate:,.2f} s"
    _check_samples(values, name)
    return values, rate, remark


def _check_samples(values: np.ndarray, name: str) -> None:
    if not len(values):
        raise UserError(f"{name} is empty: it has no samples")
    if not np.isfinite(values).all():
        raise UserError(f"{name} has samples that are not finite: save it again")
    if not values.any():
        raise UserError(f"{name} is silent: every sample is zero")


def _decode(file: soundfile.SoundFile, count: int) -> np.ndarray:
    """Decode up to `count` samples, averaged over channels, until the first error.

    Raises:
        SoundFileError: no sample can be decoded.
    """
    blocks, left = [], count
    while left > 0:
        block = np.full((min(left, BLOCK), file.channels), np.nan, dtype=np.float32)
        try:
            found, failed = len(file.read(out=block)), False
        except soundfile.SoundFileError:
            found, failed = int((~np.isnan(block)).all(1).argmin()), True  # samples decoded before the error
            if not found and not blocks:
                raise
        blocks.append(block[:found].mean(1))
        left -= found
        if failed or found < len(block):
            break
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _check_piece(piece: Piece, start: int, requested: int, found: int, rate: int, name: str) -> None:
    """Raise UserError if a piece is outside of its recording, with a tolerance for rounding."""
    end = (start + found) / rate
    if piece.offset * rate > start + 1 or not found:
        raise UserError(f"{name}: the offset of {piece.offset:g} s is beyond the end of the recording, {end:.2f} s")
    if piece.duration is not None and requested - found > ROUNDING * rate:
        raise UserError(
            f"{name}: {piece.offset:g} s and a duration of {piece.duration:g} s end after the recording, {end:.2f} s; "
            "give seconds, or remove the column duration"
        )


def resample(values: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """Resample a waveform with soxr, band-limited."""
    return values if rate == target_rate else soxr.resample(values, rate, target_rate)


def inside(root: Path, name: str, where: str) -> Path:
    """Return the path of a file below a folder.

    Raises:
        UserError: the file is outside of the folder, by `..`, an absolute path or a link.
    """
    path = root / name  # `name` itself if it is absolute
    if "\0" in name or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise UserError(f"{where}: {name[:80]!r} is not below {root}: the files of a manifest must be in its folder")
    return path
