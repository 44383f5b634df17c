"""Tables of recordings, with the columns audio (waveforms), rate (Hz) and file."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor
from warmstart.data.clusters import Clusters
from warmstart.data.duplicates.comparison import Comparison, Overlap, to_keys
from warmstart.data.preprocess import transcripts
from warmstart.data.readers.files import map_in_threads
from warmstart.data.readers.folders import files_below
from warmstart.data.readers.sounds import SUFFIXES, read_sounds, resample
from warmstart.data.readers.table import Dialect, is_table
from warmstart.data.sources.audio.manifest import PIECE, read_manifest
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import Frames, Ragged


class RecordingRows(Comparison):
    """Exact comparison of recordings, whose noise makes equality by chance impossible."""

    def keys(self, x: pd.DataFrame) -> np.ndarray:
        """Return a 64-bit hash of each recording (N,)."""
        return to_keys(hashlib.blake2b(values.tobytes(), digest_size=8).digest() for values in x["audio"])

    def shown(self, x: pd.DataFrame, row: int) -> str:
        """Return the file name of a recording."""
        return str(x["file"].iloc[row])


class TakesRecordings(Preprocessor):
    """Base class of preprocessors of recordings.

    Args:
        column: column of recordings in tables; None for the first of audio, audio_filepath, path and file.
        dialect: format of the tables.
        cluster: column of clusters, such as speakers, in tables; None if there is none.
        pieces: maximum number of labels of transcripts, for CTC; None for characters.
    """

    abilities: ClassVar = frozenset({"overlap", "skip"})
    remedy: ClassVar = ""  # alternatives to removing a transcript that is too long, for a message

    def __init__(
        self,
        column: str | None = None,
        dialect: dict[str, Any] | None = None,
        cluster: str | None = None,
        pieces: int | None = None,
    ):
        self.column, self.dialect, self.cluster = column, Dialect(**(dialect or {})), cluster
        self.pieces, self.alphabet = pieces, ()

    @property
    def names(self) -> list[str] | None:
        """Columns that a table of recordings must have; None if there are several alternatives."""
        return None if self.column is None else [self.column]

    def adapted(self, own: TakesRecordings) -> TakesRecordings:
        """Return this preprocessor with the table format and the labels of transcripts of another one, `own`."""
        adapted = copy.copy(self)
        adapted.column, adapted.dialect, adapted.cluster = own.column, own.dialect, own.cluster
        adapted.pieces = own.pieces
        return adapted

    def table_state(self) -> dict[str, Any]:
        """Return the settings of tables as plain JSON; empty without a table."""
        state = {} if self.column is None else {"column": self.column, "dialect": self.dialect.state()}
        return state if self.cluster is None else {**state, "cluster": self.cluster}

    comparison = RecordingRows

    def overlap(self, generic: pd.DataFrame, test: pd.DataFrame) -> Overlap:
        """Return the test rows whose waveform equals that of a generic row."""
        known = {values.tobytes() for values in generic["audio"]}
        return Overlap([row for row, values in enumerate(test["audio"]) if values.tobytes() in known], [])

    def positions(self, lengths: np.ndarray) -> np.ndarray:
        """Return the number of positions of a model for the lengths of encoded recordings (N,)."""
        raise NotImplementedError

    def fit_transcripts(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Fit the labels of transcripts to training texts, and return them: characters, or up to `pieces` subwords.

        Raises:
            UserError: there are more characters than `pieces`.
        """
        self.alphabet = transcripts.alphabet(texts, self.pieces)
        return self.alphabet

    def align(self, x: pd.DataFrame, y: Any, target: str) -> tuple[Frames, Ragged | None]:
        """Return encoded recordings and the labels of each transcript, padded with -1.

        Raises:
            UserError: a character is in no label, or a transcript has more labels than its recording has positions.
        """
        encoded = self.encode(x)
        if y is None:
            return encoded, None
        names = x["file"].tolist()
        rows = transcripts.spell(y, self.alphabet, names)
        positions = self.positions(encoded.lengths)
        return encoded, transcripts.fitting(rows, positions, names, self.seconds, self.remedy)

    def read(self, path: str, on_error: str = "raise") -> Inputs:
        """Read a sound file, a folder of sound files, or a manifest.

        Raises:
            UserError: there are no sound files, or one is broken and `on_error` is raise.
        """
        root = Path(path)
        if is_table(root):
            x, table = read_manifest(root, self.column, on_error, self.dialect)
            parts = x[[name for name in PIECE if name in x]].to_dict("records")
            parts = [{name: value for name, value in part.items() if pd.notna(value)} for part in parts]
            rows, cluster = table.index[x.index].tolist(), None
            if self.cluster in table:
                advice = "name them, or remove these rows"
                cluster = functools.partial(Clusters(self.cluster).read, table.iloc[x.index], path, advice)
            return Inputs(x, rows, x.get("source", x["file"]).tolist(), parts, cluster)
        files = files_below(root, SUFFIXES) if root.is_dir() else [root]
        if not files:
            raise UserError(f"{path} has no sound files")
        x = read_sounds(files, list(map(str, files)), on_error)
        return Inputs(x, (x.index + 1).tolist(), x["file"].tolist())


def check_longest(x: pd.DataFrame, longest: float) -> None:
    """Raise UserError if a recording is longer than `longest` seconds."""
    seconds = np.array([len(values) for values in x["audio"]]) / x["rate"].to_numpy()
    if (wrong := np.flatnonzero(seconds > longest)).size:
        row = wrong[0]
        raise UserError(
            f"{x['file'].iloc[row]} is {seconds[row]:.1f} s long; with it, {len(wrong):,} recordings are longer than "
            f"data.frames.longest={longest}: split them, or raise the limit"
        )


def waves_at(x: pd.DataFrame, rate: int) -> list[np.ndarray]:
    """Resample each waveform (S,) to this rate in Hz."""
    recordings = list(zip(x["audio"], x["rate"], strict=True))
    return map_in_threads(lambda recording: resample(*recording, rate), recordings)


def cached_rows(
    kind: str, settings: str, x: pd.DataFrame, make: Callable[[], Sequence[np.ndarray]], empty: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return concatenated rows (V, ...) computed from recordings, and their starts (N + 1,), from the cache.

    Args:
        kind: name of the folder in the cache.
        settings: what the rows depend on, besides the recordings.
        x: recordings (N).
        make: returns the rows (N).
        empty: the values without a recording.
    """

    def write(folder: Path) -> None:
        rows = make()
        np.save(folder / "values.npy", np.concatenate([empty, *rows]))
        np.save(folder / "starts.npy", np.cumsum([0, *map(len, rows)]))

    name = cache.key(settings, repr(x["rate"].tolist()), *(values.tobytes() for values in x["audio"]))
    values, starts = cache.entry(kind, name, write, lambda folder: cache.arrays(folder, ("values", "starts")))
    return values, np.asarray(starts)
