"""Recordings as tables with the columns audio (waveforms), rate (Hz) and file: read, limited, resampled, compared."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warmstart.contracts import Inputs, UserError
from warmstart.data.duplicates import Overlap, to_keys
from warmstart.data.manifest import read_manifest
from warmstart.data.ragged import Ragged
from warmstart.data.readers.table import is_table
from warmstart.data.sounds import read_sounds, resampled, sound_files


class RecordingRows:
    """Compares recordings sample by sample."""

    def keys(self, x: pd.DataFrame) -> np.ndarray:
        """Return 64 bits for each recording (N,)."""
        return to_keys(hashlib.blake2b(values.tobytes(), digest_size=8).digest() for values in x["audio"])

    def by_chance(self, seen: pd.DataFrame, x: pd.DataFrame) -> np.ndarray:
        """Return False for each recording (N,): noise is in all of them."""
        return np.zeros(len(x), dtype=bool)

    def near(self, seen: pd.DataFrame, parts: Sequence[pd.DataFrame]) -> list[list[int]]:
        """Return nothing: recordings are compared exactly."""
        return [[] for _ in parts]

    def shown(self, x: pd.DataFrame, row: int) -> str:
        """Return a recording's file."""
        return str(x["file"].iloc[row])


class TakesRecordings:
    """What preprocessors of recordings have in common, whatever they turn waveforms into."""

    comparison = RecordingRows

    def overlap(self, generic: pd.DataFrame, test: pd.DataFrame) -> Overlap:
        """Test rows whose waveform is that of a generic row, sample by sample."""
        known = {values.tobytes() for values in generic["audio"]}
        return Overlap([row for row, values in enumerate(test["audio"]) if values.tobytes() in known], [])

    def read(self, path: str) -> Inputs:
        """A sound file, a folder of them, or a manifest; and what each recording is called.

        Raises:
            UserError: there is none, or one is broken.
        """
        place = Path(path)
        if is_table(place):
            x, table = read_manifest(place)
            return Inputs(x, table.index[x.index].tolist(), x["file"].tolist())
        files = sound_files(place) if place.is_dir() else [place]
        if not files:
            raise UserError(f"{path} holds no sound files")
        if not files[0].is_file():
            raise UserError(f"{path}: there is no such file")
        names = list(map(str, files))
        return Inputs(read_sounds(files, names), list(range(1, len(names) + 1)), names)


def check_longest(x: pd.DataFrame, longest: float) -> None:
    """Refuse recordings of more seconds than `longest`, naming the first."""
    seconds = np.array([len(values) for values in x["audio"]]) / x["rate"].to_numpy()
    if (wrong := np.flatnonzero(seconds > longest)).size:
        row = wrong[0]
        raise UserError(
            f"{x['file'].iloc[row]} is {seconds[row]:.1f} s long, as are {len(wrong) - 1:,} others longer than "
            f"data.frames.longest={longest}: cut it into shorter pieces or raise the limit"
        )


def waves_at(x: pd.DataFrame, rate: int) -> list[np.ndarray]:
    """Each waveform (S,) at this rate, in Hz."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda values, own: resampled(values, own, rate), x["audio"], x["rate"]))


def digest(x: pd.DataFrame) -> list[bytes | str]:
    """What a cache tells these recordings from others by."""
    return [repr(x["rate"].tolist()), *(values.tobytes() for values in x["audio"])]


def beside(x: pd.DataFrame, positions: np.ndarray, y: Any, seconds: float, remedy: str) -> Ragged:
    """The label numbers of each transcript, padded with -1.

    Args:
        x: the recordings.
        positions: that each of them has (N,).
        y: a list of label numbers per recording.
        seconds: from one position to the next.
        remedy: what else may be done about a transcript that is too long than to remove it.

    Raises:
        UserError: a transcript has more labels than its positions can hold, with one between two that are alike.
    """
    needed = np.array([len(row) + sum(a == b for a, b in itertools.pairwise(row)) for row in y])
    if (wrong := np.flatnonzero(needed > positions)).size:
        row = wrong[0]
        raise UserError(
            f"{x['file'].iloc[row]}: its text of {len(y[row])} labels cannot fit its {positions[row]} "
            f"positions of {seconds:g} s; {len(wrong):,} of {len(x):,} utterances are like this: remove them{remedy}"
        )
    lengths = np.array([len(row) for row in y])
    flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in y])
    return Ragged(flat, np.cumsum([0, *lengths]), lengths, -1, int(lengths.max()))
