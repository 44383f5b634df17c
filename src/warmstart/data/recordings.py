"""Recordings as tables with the columns audio (waveforms), rate (Hz) and file: read, limited, resampled, compared."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warmstart.contracts import UserError
from warmstart.data.duplicates import Overlap
from warmstart.data.manifest import manifest_files, read_manifest
from warmstart.data.ragged import Ragged
from warmstart.data.sounds import read_sounds, resampled, sound_files

MANIFESTS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".pq")


def read_recordings(path: str) -> pd.DataFrame:
    """A sound file, a folder of them, or a manifest.

    Raises:
        UserError: there is none, or one is broken.
    """
    if Path(path).suffix.lower() in MANIFESTS:
        return read_manifest(Path(path))[0]
    files = recording_files(path)
    if not files:
        raise UserError(f"{path} holds no sound files")
    if not Path(files[0]).is_file():
        raise UserError(f"{path}: there is no such file")
    return read_sounds([Path(file) for file in files], files)


def recording_files(path: str) -> list[str]:
    """The files that `read_recordings` makes an example each of."""
    if Path(path).suffix.lower() in MANIFESTS:
        return manifest_files(Path(path))
    return [str(file) for file in sound_files(Path(path))] if Path(path).is_dir() else [path]


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


def same_recordings(generic: pd.DataFrame, test: pd.DataFrame) -> Overlap:
    """Test rows whose waveform is that of a generic row, sample by sample."""
    known = {values.tobytes() for values in generic["audio"]}
    return Overlap([row for row, values in enumerate(test["audio"]) if values.tobytes() in known], [])
