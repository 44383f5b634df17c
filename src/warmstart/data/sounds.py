"""Sound files to waveforms: one channel, as they were recorded."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr

from warmstart import screen
from warmstart.contracts import UserError

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif"})
ON_ERROR = ("raise", "skip")
UNKNOWN = 2**31 - 2**12  # bytes: what programs write that do not know a length is about 2**31 or 2**32
LONGEST = 3600.0  # seconds that are read at all


def sound_files(folder: Path) -> list[Path]:
    """The sound files below a folder, sorted; hidden ones are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def read_sounds(sounds: Sequence[Path | bytes], names: Sequence[str], on_error: str = "raise") -> pd.DataFrame:
    """A table with the columns audio (a waveform (S,), float32 from -1 to 1), rate (Hz) and file, read in parallel.

    Args:
        sounds: paths, or the content of files.
        names: what a message calls each.
        on_error: raise, or skip, which leaves broken sounds out and lists them; the table's index says which are left.

    Raises:
        UserError: one is not a readable sound, is empty, silent or too long, or holds values that are no numbers.
    """
    if on_error not in ON_ERROR:
        raise UserError(f"data.on_error={on_error}: give {' or '.join(ON_ERROR)}")

    def read(sound: Path | bytes, name: str) -> tuple[np.ndarray, int] | UserError:
        try:
            return read_sound(sound, name)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(read, sounds, names))
    broken = [error for error in found if isinstance(error, UserError)]
    if broken and (on_error == "raise" or len(broken) == len(found)):
        raise broken[0]
    if broken:
        screen.say(f"left out {len(broken):,} of {len(found):,} sounds:", style="yellow")
        for error in broken:
            screen.say(f"  {error}", style="yellow")
    kept = [row for row, one in enumerate(found) if not isinstance(one, UserError)]
    audio = pd.Series([found[row][0] for row in kept], dtype=object, index=kept)
    return pd.DataFrame({"audio": audio, "rate": [found[row][1] for row in kept], "file": [names[row] for row in kept]})


def read_sound(sound: Path | bytes, name: str) -> tuple[np.ndarray, int]:
    """The waveform (S,), channels averaged, and its rate; see `read_sounds`."""
    if is_cut_off(sound):
        raise UserError(f"{name} is truncated: its first bytes promise more than there are")
    try:
        with soundfile.SoundFile(io.BytesIO(sound) if isinstance(sound, bytes) else str(sound)) as file:
            if file.frames > LONGEST * file.samplerate:
                raise UserError(f"{name} is {file.frames / file.samplerate:,.0f} s long: cut it into shorter pieces")
            values, rate = file.read(dtype="float32", always_2d=True).mean(1), file.samplerate
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix(f"Error opening {str(sound)!r}: ")
        raise UserError(f"{name} is not a readable sound: {reason}") from error
    if not len(values):
        raise UserError(f"{name} holds no sound: it has no samples")
    if not np.isfinite(values).all():
        raise UserError(f"{name} holds samples that are no numbers: save it again")
    if not values.any():
        raise UserError(f"{name} is silent: every sample is zero")
    return values, rate


def is_cut_off(sound: Path | bytes) -> bool:
    """Whether a WAV file is shorter than its header says, which libsndfile reads without a word."""
    try:
        size = len(sound) if isinstance(sound, bytes) else sound.stat().st_size
        with io.BytesIO(sound) if isinstance(sound, bytes) else sound.open("rb") as file:
            kind, length = struct.unpack("<4sI", file.read(8))
    except (OSError, struct.error):
        return False
    return kind == b"RIFF" and size < length + 8 < UNKNOWN


def resampled(values: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """A waveform at another rate, band-limited, by soxr."""
    return values if rate == wanted else soxr.resample(values, rate, wanted)


def inside(root: Path, name: str) -> Path:
    """The file of this name below a folder.

    Raises:
        UserError: it is elsewhere, by `..`, an absolute path or a link.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{name} is not below {root}: a manifest names files in its own folder")
    return path
