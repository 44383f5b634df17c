"""Recordings as tables with the columns audio (waveforms), rate (Hz) and file: read, limited, resampled, compared."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor
from warmstart.data.duplicates.overlap import Overlap, to_keys
from warmstart.data.readers.folders import files_below
from warmstart.data.readers.sounds import SUFFIXES, read_sounds, resampled
from warmstart.data.readers.table import Dialect, is_table
from warmstart.data.readers.threads import map_in_threads
from warmstart.data.sources.audio.manifest import PIECE, read_manifest
from warmstart.data.storage.ragged import Ragged


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


class TakesRecordings(Preprocessor):
    """What preprocessors of recordings have in common, whatever they turn waveforms into.

    Args:
        column: of recordings, in the user's tables; None for the first of audio, audio_filepath, path and file.
        dialect: how these tables are written.
    """

    abilities: ClassVar = frozenset({"overlap", "skip"})

    def __init__(self, column: str | None = None, dialect: dict[str, Any] | None = None):
        self.column, self.dialect = column, Dialect(**(dialect or {}))

    @property
    def names(self) -> list[str] | None:
        """The columns that a table of recordings must have; None where any of several will do."""
        return None if self.column is None else [self.column]

    def adapted(self, own: TakesRecordings) -> TakesRecordings:
        """Return this preprocessor for the tables of a data set with its `own` preprocessor."""
        adapted = copy.copy(self)
        adapted.column, adapted.dialect = own.column, own.dialect
        return adapted

    def table_state(self) -> dict[str, Any]:
        """Return what of the state is about tables, as plain JSON; nothing where recordings came in none."""
        return {} if self.column is None else {"column": self.column, "dialect": self.dialect.state()}

    comparison = RecordingRows

    def overlap(self, generic: pd.DataFrame, test: pd.DataFrame) -> Overlap:
        """Test rows whose waveform is that of a generic row, sample by sample."""
        known = {values.tobytes() for values in generic["audio"]}
        return Overlap([row for row, values in enumerate(test["audio"]) if values.tobytes() in known], [])

    def read(self, path: str, on_error: str = "raise") -> Inputs:
        """Read a sound file, a folder of them, or a manifest.

        Raises:
            UserError: there is none, or one is broken and `on_error` is raise.
        """
        place = Path(path)
        if is_table(place):
            x, table = read_manifest(place, self.column, on_error, self.dialect)
            parts = x[[name for name in PIECE if name in x]].to_dict("records")
            parts = [{name: value for name, value in part.items() if pd.notna(value)} for part in parts]
            return Inputs(x, table.index[x.index].tolist(), x.get("source", x["file"]).tolist(), parts)
        files = files_below(place, SUFFIXES) if place.is_dir() else [place]
        if not files:
            raise UserError(f"{path} holds no sound files")
        x = read_sounds(files, list(map(str, files)), on_error)
        return Inputs(x, (x.index + 1).tolist(), x["file"].tolist())


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
    recordings = list(zip(x["audio"], x["rate"], strict=True))
    return map_in_threads(lambda recording: resampled(*recording, rate), recordings)


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
