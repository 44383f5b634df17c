"""Spoken digits: zero to nine by six speakers, from the Free Spoken Digit Dataset (Jackson et al. 2018)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import soundfile

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Count, Location, Seed
from warmstart.data.readers.splits import describe, read_splits
from warmstart.data.sources.audio.manifest import sounds_of
from warmstart.data.sources.audio.transcripts import alphabet, spelled

FILE = Path(__file__).parents[1] / "files" / "spoken_digits.ogg"
SHA256 = "0ba9514af816ff57a814fa431a10b8a2f61d1af5a88751e5a43660ec1918065c"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOISY = 10.0  # decibels that the noise behind a shifted recording is softer than it
HELD_OUT = 5  # the recordings 0 to 4 of each digit and speaker are the official test split
GAP = (0.0, 0.15)  # seconds between connected digits
NOISE = 0.001  # standard deviation of what is heard there
LEVEL = 6.0  # decibels, at most, that a connected digit is made softer or louder
SPLITS = ("speaker", "official")
CLASSES = ("word", "speaker")
REPEATS = 2  # how often each recording is used, when strings of digits train


class SpokenDigits(Source):
    """1,200 recordings that come with the package, or all 3,000 by `root`.

    Validation is by recordings 0 to 4 of the speakers that train; where the official split tests on these, the last 5.
    The recordings tested on are also tested with noise behind them (`noisy`).

    Args:
        frames: makes the preprocessor.
        root: None, or a hub name or a local folder in the hub's layout.
        split: speaker, which tests on speakers that are not heard in training, or official, which tests on recordings
            0 to 4 of each digit by the same speakers.
        test_speakers: who is tested on, if split by speaker.
        classes: word, or speaker, which needs the official split.
        connect: the least and the most digits that are strung together, of one speaker, with silence between them and
            changes of level; None for single ones. These have no class, only a text.
        pieces: labels of a transcript; None for characters.
        split_seed: fixes which recordings are strung together.
    """

    modality: ClassVar = "speech"
    offers: ClassVar = frozenset({"category", "text"})

    def __init__(
        self,
        frames: Callable[..., Preprocessor],
        root: Location | None = None,
        split: Literal["speaker", "official"] = "speaker",
        test_speakers: Sequence[str] = ("theo", "yweweler"),
        classes: Literal["word", "speaker"] = "word",
        connect: Sequence[Count] | None = None,
        pieces: Count | None = None,
        split_seed: Seed = 0,
    ):
        if split not in SPLITS:
            raise UserError(f"data.split={split}: give {' or '.join(SPLITS)}")
        if classes not in CLASSES:
            raise UserError(f"data.classes={classes}: give {' or '.join(CLASSES)}")
        if connect is not None and not is_range(connect):
            raise UserError(f"data.connect={connect}: give the least and the most digits, such as [2,5]")
        if not isinstance(test_speakers, list | tuple):
            raise UserError(f"data.test_speakers={test_speakers}: give a list of names, such as [theo]")
        if split_seed < 0:
            raise UserError(f"data.split_seed={split_seed}: must be 0 or more")
        self.frames, self.root, self.split, self.test_speakers = frames, root, split, list(test_speakers)
        self.classes, self.connect, self.pieces, self.split_seed = classes, connect, pieces, split_seed

    def load(self, target: str | None) -> Splits:
        """Waveforms, with digits as classes or their names as texts.

        Raises:
            UserError: the files are missing or broken, or a speaker is not known.
        """
        if target == "category" and self.connect is not None:
            raise UserError(f"data.connect={list(self.connect)}: strings of digits have no class: use objective=ctc")
        if target == "category" and (self.classes, self.split) == ("speaker", "speaker"):
            raise UserError("data.classes=speaker: those who are tested on must be known: set data.split=official")
        table = shipped() if self.root is None else self._read()
        held = table.recording < HELD_OUT
        tested = held
        if self.split == "speaker":
            known = sorted(set(table.speaker))
            if unknown := set(self.test_speakers) - set(known):
                raise UserError(f"data.test_speakers: there is no {sorted(unknown)[0]}; there are {', '.join(known)}")
            tested = table.speaker.isin(self.test_speakers)
            if tested.all() or not tested.any():
                raise UserError("data.test_speakers: leave one speaker to train on and one to test on")
        trained = ~held & ~tested
        validated = held & ~tested
        if self.split == "official":
            validated = table.recording > table.recording.max() - HELD_OUT
            trained = ~held & ~validated
        parts = [table[chosen].reset_index(drop=True) for chosen in (trained, validated, tested)]
        if self.connect is not None:
            parts = [self._strung(part, number, REPEATS if number == 0 else 1) for number, part in enumerate(parts)]
        if target == "category":
            column, labels = ("text", DIGITS) if self.classes == "word" else ("speaker", sorted(set(table.speaker)))
            numbers = [np.array([labels.index(name) for name in part[column]]) for part in parts]
            return shifted(*map(rows_of, parts, numbers), tuple(labels))
        if target == "text":
            labels = alphabet(parts[0].text, self.pieces)
            return shifted(*(rows_of(part, spelled(part.text, labels, part.file)) for part in parts), labels)
        return Splits(*(rows_of(part, None) for part in parts))

    def preprocessor(self) -> Preprocessor:
        """As the frames are configured."""
        return self.frames()

    def _read(self) -> pd.DataFrame:
        """All recordings of a data set in the hub's layout."""
        splits = read_splits(self.root)
        tables = []
        for name, part in splits.items():
            frame = part.reset_index(drop=True)
            where = describe(self.root, name, splits)
            if lost := {"audio", "text", "speaker"} - set(frame.columns):
                raise UserError(f"{where} has no column {sorted(lost)[0]}; it has {', '.join(frame.columns)}")
            if not frame.audio.map(lambda cell: isinstance(cell, dict)).all() or not frame.text.isin(DIGITS).all():
                raise UserError(f"{where} is not laid out as the Free Spoken Digit Dataset: use data=audio_table")
            paths = frame.audio.map(lambda cell: str(cell.get("path")))
            number = paths.str.extract(r"_(\d+)\.\w+$")[0]
            if number.isna().any():
                row = int(number.isna().to_numpy().argmax())
                raise UserError(f"{where}, row {part.index[row]}: {paths[row]} is not named digit_speaker_NUMBER")
            sounds = sounds_of(part, where, Path(self.root))
            tables.append(
                sounds.assign(file=paths, text=frame.text, speaker=frame.speaker, recording=number.astype(int))
            )
        return pd.concat(tables, ignore_index=True)

    def _strung(self, table: pd.DataFrame, part: int, repeats: int) -> pd.DataFrame:
        """Strings of digits of one speaker each, every recording used `repeats` times."""
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
    """Whether this is the least and the most digits of a string."""
    whole = isinstance(counts, list | tuple) and len(counts) == 2 and all(type(count) is int for count in counts)
    return whole and 1 <= counts[0] <= counts[1] <= 20


def shipped() -> pd.DataFrame:
    """The recordings that come with the package.

    Raises:
        UserError: the file is not the one that was shipped.
    """
    try:
        data = FILE.read_bytes()
    except OSError as error:
        raise UserError(f"{FILE} cannot be read ({error.strerror}): install warmstart again") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(f"{FILE} is not the file that was shipped: install warmstart again")
    values, rate = soundfile.read(FILE, dtype="float32")
    table = pd.read_csv(FILE.with_suffix(".csv"))
    audio = [values[start:stop] for start, stop in zip(table.start, table.stop)]
    names = [f"{DIGITS.index(row.text)}_{row.speaker}_{row.recording}" for row in table.itertuples()]
    return table.assign(audio=pd.Series(audio, dtype=object), rate=rate, file=names)


def rows_of(table: pd.DataFrame, y: np.ndarray | None) -> Rows:
    """Waveforms and targets."""
    return Rows(table[["audio", "rate", "file"]], y)


def shifted(train: Rows, validation: Rows, test: Rows, labels: tuple[str, ...]) -> Splits:
    """These parts, and the test recordings with noise behind them."""
    noisy = Rows(with_noise(test.x, NOISY, seed=0), test.y)
    return Splits(train, validation, test, labels, shifts={"noisy": noisy})


def with_noise(sounds: pd.DataFrame, decibels: float, seed: int) -> pd.DataFrame:
    """The same table with white noise in every waveform, whose power is so many decibels below the recording's own.

    The same recordings and seed give the same noise.
    """
    generator = np.random.default_rng(seed)

    def noisy(values: np.ndarray) -> np.ndarray:
        deviation = np.sqrt(np.square(values, dtype=np.float64).mean() / 10 ** (decibels / 10))
        return (values + generator.normal(0, deviation, len(values))).astype(np.float32)

    return sounds.assign(audio=pd.Series([noisy(values) for values in sounds.audio], sounds.index, dtype=object))
