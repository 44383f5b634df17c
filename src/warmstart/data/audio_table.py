"""The user's own recordings in a manifest: one row per recording, with a text or a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from warmstart.contracts import Preprocessor, Rows, Splits, UserError
from warmstart.data.manifest import sounds_of
from warmstart.data.readers.columns import pick, to_names, to_texts
from warmstart.data.readers.splits import place, read_splits
from warmstart.data.splits import check_classes, split_rows
from warmstart.data.transcripts import alphabet, spelled

FEWEST = 4  # rows of a class that can be in every part
SHARE = 0.15  # of the speakers that test, and again of the others that validate


class AudioTable:
    """Classes or transcripts, as the objective asks; recordings without a class serve pretraining only.

    A data set's own splits are put together and cut anew: by speakers, where `speaker` names their column, or by rows.

    Args:
        frames: makes the preprocessor.
        root: a CSV, TSV, Parquet, JSON or JSON lines file, a folder that `datasets` reads, or a hub name; files that it
            names are in its folder or below.
        audio: the column of paths or sounds; None for the first of audio, audio_filepath, path and file.
        text: the column of transcripts.
        target: the column of classes.
        speaker: the column of speakers, who then are in one part each.
        pieces: labels of a transcript; None for characters.
        on_error: raise, or skip broken recordings.
        config: of a hub name that has several.
        split_seed: fixes the parts.
    """

    modality: ClassVar = "speech"
    offers: ClassVar = frozenset({"category", "text"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: str,
        audio: str | None = None,
        text: str = "text",
        target: str = "label",
        speaker: str | None = None,
        pieces: int | None = None,
        on_error: str = "raise",
        config: str | None = None,
        split_seed: int = 0,
    ):
        self.frames, self.root, self.audio, self.text, self.target = frames, root, audio, text, target
        self.speaker, self.pieces, self.on_error, self.config = speaker, pieces, on_error, config
        self.split_seed = split_seed

    def load(self, target: str | None) -> Splits:
        """Waveforms, and class numbers or lists of label numbers.

        Raises:
            UserError: a column or a file is missing, a text is empty, or there is one class or speaker only.
        """
        splits = read_splits(self.root, self.config)
        parts = [self._table(frame, place(self.root, name, splits), target) for name, frame in splits.items()]
        table = pd.concat(parts, ignore_index=True)
        x = table[["audio", "rate", "file"]]
        y, labels = None, ()
        if target == "category":
            labelled = table.y.notna()
            labels = tuple(sorted(set(table.y[labelled])))
            y = np.searchsorted(labels, table.y.where(labelled, "").astype(str)).astype(np.int64)
            check_classes(y[labelled], labels)
        index = self._parts(table)
        if target == "category":
            index = [rows[labelled[rows]] for rows in index]
        if target == "text":
            labels = alphabet(table.y[index[0]].tolist(), self.pieces)
            y = spelled(table.y.tolist(), labels, table.file)
        rows = Rows(x, y)
        found = [rows.take(numbers) for numbers in index]
        return Splits(*(Rows(part.x.reset_index(drop=True), part.y) for part in found), labels=labels)

    def preprocessor(self) -> Preprocessor:
        """As the frames are configured."""
        return self.frames()

    def _table(self, frame: pd.DataFrame, where: str, kind: str | None) -> pd.DataFrame:
        """One split's recordings, targets and speakers."""
        columns = {}
        if self.target in frame:
            names = to_names(frame[self.target], where)
            columns["stratum"] = np.array(["" if name is None else name for name in names])
        if kind == "category":
            columns["y"] = to_names(pick(frame, str(self.target), where, "data.target"), where)
        elif kind == "text":
            columns["y"] = to_texts(pick(frame, str(self.text), where, "data.text"), where).to_numpy()
        if self.speaker is not None:
            columns["speaker"] = pick(frame, str(self.speaker), where, "data.speaker").astype(str).to_numpy()
        root = Path(self.root)
        sounds = sounds_of(frame, where, root if root.is_dir() else root.parent, self.audio, self.on_error)
        return sounds.assign(**{name: values[sounds.index] for name, values in columns.items()})

    def _parts(self, table: pd.DataFrame) -> list[np.ndarray]:
        """The row numbers that train, validate and test, whatever the kind of target."""
        if self.speaker is None:
            strata = table.get("stratum")
            if strata is not None and strata.value_counts().min() < FEWEST:
                strata = None
            cut = split_rows(
                Rows(np.arange(len(table))), (), self.split_seed, None if strata is None else strata.to_numpy()
            )
            return [part.x for part in (cut.train, cut.validation, cut.test)]
        speakers = table.speaker.to_numpy()
        if len(set(speakers)) < 3:
            raise UserError(
                f"data.speaker={self.speaker}: there are {len(set(speakers))} speakers, and 3 are needed, one for each "
                "part: set data.speaker=null to split by rows"
            )
        rest, parts = np.arange(len(table)), []
        for _ in range(2):
            splitter = GroupShuffleSplit(1, test_size=SHARE, random_state=self.split_seed)
            kept, held = next(splitter.split(rest, groups=speakers[rest]))
            parts.append(rest[held])
            rest = rest[kept]
        return [rest, parts[1], parts[0]]
