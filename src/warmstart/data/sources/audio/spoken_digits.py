"""Spoken digits: zero to nine by six speakers, from the Free Spoken Digit Dataset (Jackson et al. 2018)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import soundfile

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, PositiveInt, Seed
from warmstart.data.clusters import Chosen, Clusters
from warmstart.data.readers.splits import describe, read_splits
from warmstart.data.sources.audio.manifest import sounds_of

FILE = Path(__file__).parents[1] / "files" / "spoken_digits.ogg"
SHA256 = "0ba9514af816ff57a814fa431a10b8a2f61d1af5a88751e5a43660ec1918065c"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOISY = 10.0  # signal-to-noise ratio of the shifted recordings in decibels
HELD_OUT = 5  # recordings 0 to 4 of each digit and speaker are the official test split
GAP = (0.0, 0.15)  # seconds between connected digits
NOISE = 0.001  # standard deviation of the noise in these gaps
LEVEL = 6.0  # maximum change of the level of a connected digit in decibels
REPEATS = 2  # uses of each recording in training strings


class SpokenDigits(Source):
    """The 1,200 recordings of the package, or all 3,000 of `root`.

    Validation uses recordings 0 to 4 of the training speakers, or the last 5 with the official split. The shifted test
    split `noisy` has added noise.

    Args:
        frames: constructor of the preprocessor.
        root: None, or a hub name or a local folder with the layout of the hub.
        cluster: speaker; recordings of a speaker are not independent.
        split: cluster, which tests on other speakers than those in training, or official, which tests on recordings
            0 to 4 of each digit by the same speakers.
        test_clusters: test speakers, or a part of all speakers, such as 1/3, with split=cluster.
        classes: word, or speaker, which needs the official split.
        connect: minimum and maximum number of digits of a speaker to concatenate, with silence and changes of level;
            None for single digits. Strings of digits have a text, but no class.
        pieces: vocabulary size of the transcripts; None for characters.
        split_seed: seed of the concatenation.
    """

    modality: ClassVar = "speech"
    target_kinds: ClassVar = frozenset({"category", "text", "sequence"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: Location | None = None,
        cluster: Literal["speaker"] = "speaker",
        split: Literal["cluster", "official"] = "cluster",
        test_clusters: Chosen = ("theo", "yweweler"),
        classes: Literal["word", "speaker"] = "word",
        connect: Sequence[PositiveInt] | None = None,
        pieces: PositiveInt | None = None,
        split_seed: Seed = 0,
    ):
        if connect is not None and not is_range(connect):
            raise UserError(f"data.connect={connect}: give the minimum and maximum number of digits, such as [2,5]")
        self.frames, self.root, self.split = frames, root, split
        self.clusters = Clusters(cluster, test=test_clusters)
        self.classes, self.connect, self.pieces, self.split_seed = classes, connect, pieces, split_seed

    def load(self, target: str | None) -> Splits:
        """Return waveforms, with digits or speakers as classes, or transcripts.

        Raises:
            UserError: the files are missing or broken, or a speaker is unknown.
        """
        if target == "category" and self.connect is not None:
            raise UserError(f"data.connect={list(self.connect)}: strings of digits have no class: use objective=ctc")
        if target == "category" and (self.classes, self.split) == ("speaker", "cluster"):
            raise UserError("data.classes=speaker: test speakers must be in training: set data.split=official")
        table = read_packaged() if self.root is None else self._read()
        held = table.recording < HELD_OUT
        tested = held
        if self.split == "cluster":
            tested = table.speaker.isin(self.clusters.tested(table.speaker.to_numpy()))
            if tested.all():
                raise UserError("data.test_clusters: all speakers are in the test split, and none in training")
        trained = ~held & ~tested
        validated = held & ~tested
        if self.split == "official":
            validated = table.recording > table.recording.max() - HELD_OUT
            trained = ~held & ~validated
        parts = [table[chosen].reset_index(drop=True) for chosen in (trained, validated, tested)]
        if self.connect is not None:
            parts = [
                self._concatenate(part, number, REPEATS if number == 0 else 1) for number, part in enumerate(parts)
            ]
        if target == "category":
            column, labels = ("text", DIGITS) if self.classes == "word" else ("speaker", sorted(set(table.speaker)))
            numbers = [np.array([labels.index(name) for name in part[column]]) for part in parts]
            return make_splits(*map(rows_of, parts, numbers), tuple(labels))
        if target in ("text", "sequence"):
            return make_splits(*(rows_of(part, part.text.to_numpy(dtype=object)) for part in parts), ())
        return Splits(*(rows_of(part, None) for part in parts))

    def preprocessor(self) -> Preprocessor:
        return self.frames(cluster="speaker", pieces=self.pieces)

    def _read(self) -> pd.DataFrame:
        """Read all recordings of a data set with the layout of the hub."""
        splits = read_splits(self.root)
        tables = []
        for name, part in splits.items():
            frame = part.reset_index(drop=True)
            where = describe(self.root, name, splits)
            if missing := {"audio", "text", "speaker"} - set(frame.columns):
                raise UserError(f"{where} has no column {sorted(missing)[0]}; it has {', '.join(frame.columns)}")
            if not frame.audio.map(lambda cell: isinstance(cell, dict)).all() or not frame.text.isin(DIGITS).all():
                raise UserError(
                    f"{where} does not have the format of the Free Spoken Digit Dataset: use data=audio_table"
                )
            paths = frame.audio.map(lambda cell: str(cell.get("path")))
            number = paths.str.extract(r"_(\d+)\.\w+$")[0]
            if number.isna().any():
                row = int(number.isna().to_numpy().argmax())
                raise UserError(
                    f"{where}, row {part.index[row]}: {paths[row]} does not have the form digit_speaker_NUMBER"
                )
            sounds = sounds_of(part, where, Path(self.root))
            tables.append(
                sounds.assign(file=paths, text=frame.text, speaker=frame.speaker, recording=number.astype(int))
            )
        return pd.concat(tables, ignore_index=True)

    def _concatenate(self, table: pd.DataFrame, part: int, repeats: int) -> pd.DataFrame:
        """Concatenate digits of each speaker to strings, using every recording `repeats` times."""
        generator = np.random.default_rng([self.split_seed, part])
        rows = []
        for speaker, own in table.groupby("speaker"):
            order = np.concatenate([generator.permutation(len(own)) for _ in range(repeats)])
            while len(order) >= self.connect[0]:
                count = int(generator.integers(self.connect[0], self.connect[1] + 1))
                chosen, order = own.iloc[order[:count]], order[count:]
                rate = int(chosen.rate.iloc[0])
                pieces = []
                for values in chosen.audio:
                    gap = generator.normal(0, NOISE, round(generator.uniform(*GAP) * rate)).astype(np.float32)
                    gain = np.float32(10 ** (generator.uniform(-LEVEL, LEVEL) / 20))
                    pieces += [gap, gain * values]
                name = "+".join(chosen.file)
                rows.append((np.concatenate(pieces), rate, name, " ".join(chosen.text), speaker))
        return pd.DataFrame(rows, columns=["audio", "rate", "file", "text", "speaker"])


def is_range(counts: object) -> bool:
    """Return whether this is a valid minimum and maximum number of digits."""
    is_pair = isinstance(counts, list | tuple) and len(counts) == 2 and all(type(count) is int for count in counts)
    return is_pair and 1 <= counts[0] <= counts[1] <= 20


def read_packaged() -> pd.DataFrame:
    """Read the recordings of the package.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        data = FILE.read_bytes()
    except OSError as error:
        raise UserError(f"{FILE} cannot be read ({error.strerror}): install warmstart again") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(f"{FILE} is damaged: install warmstart again")
    values, rate = soundfile.read(FILE, dtype="float32")
    table = pd.read_csv(FILE.with_suffix(".csv"))
    audio = [values[start:stop] for start, stop in zip(table.start, table.stop)]
    names = [f"{DIGITS.index(row.text)}_{row.speaker}_{row.recording}" for row in table.itertuples()]
    return table.assign(audio=pd.Series(audio, dtype=object), rate=rate, file=names)


def rows_of(table: pd.DataFrame, y: np.ndarray | None) -> Rows:
    """Return waveforms, targets and speakers."""
    return Rows(table[["audio", "rate", "file"]], y, table.speaker.to_numpy(dtype=object))


def make_splits(train: Rows, validation: Rows, test: Rows, labels: tuple[str, ...]) -> Splits:
    """Return splits with the shifted test split `noisy`."""
    noisy = replace(test, x=with_noise(test.x, NOISY, seed=0))
    return Splits(train, validation, test, labels, shifts={"noisy": noisy})


def with_noise(sounds: pd.DataFrame, decibels: float, seed: int) -> pd.DataFrame:
    """Add white noise to every waveform, with this signal-to-noise ratio in decibels.

    The noise is determined by the recordings and the seed.
    """
    generator = np.random.default_rng(seed)

    def noisy(values: np.ndarray) -> np.ndarray:
        deviation = np.sqrt(np.square(values, dtype=np.float64).mean() / 10 ** (decibels / 10))
        return (values + generator.normal(0, deviation, len(values))).astype(np.float32)

    return sounds.assign(audio=pd.Series([noisy(values) for values in sounds.audio], sounds.index, dtype=object))
