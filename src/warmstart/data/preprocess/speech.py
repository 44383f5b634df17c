"""Preprocessor of speech: log-mel frames, of which several are stacked to a position."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core import screen
from warmstart.core.batch import Inputs, Rows
from warmstart.core.errors import UserError
from warmstart.core.ranges import PositiveFloat, PositiveInt, Seconds
from warmstart.data.readers import recordings
from warmstart.data.storage.ragged import Frames

CHUNK = 256  # waveforms transformed at a time
FLOOR = 1e-6  # minimum power before the logarithm
RANGE = 2.5  # standard deviations from the mean to black or white in images


class Preprocessor(recordings.TakesRecordings):
    """Raw inputs are tables with the columns audio (waveforms), rate (Hz) and file.

    Args:
        rate: sampling rate in Hz, to which recordings are resampled.
        mels: number of mel bands from 0 Hz to half the rate.
        window: length of a frame in seconds.
        hop: time between frames in seconds.
        stack: number of frames per position.
        normalize: standardize each band over each utterance, over all utterances of its speaker (the cluster) in the
            same split, or with global statistics.
        longest: maximum length of an utterance in seconds.
        mean: fitted mean per band for normalize=global.
        std: fitted standard deviation per band for normalize=global.
        column: column of recordings in tables.
        dialect: format of the tables.
        cluster: column of speakers in tables.
        pieces: maximum number of labels of transcripts, for CTC; None for characters.
    """

    abilities: ClassVar = recordings.TakesRecordings.abilities | {"to_images", "grouped"}
    remedy: ClassVar = ", or lower data.frames.stack or data.frames.hop"

    def __init__(
        self,
        rate: PositiveInt = 16_000,
        mels: PositiveInt = 40,
        window: PositiveFloat = 0.025,
        hop: PositiveFloat = 0.01,
        stack: PositiveInt = 2,
        normalize: Literal["utterance", "speaker", "global"] = "utterance",
        longest: Seconds = 20.0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        column: str | None = None,
        dialect: dict[str, Any] | None = None,
        cluster: str | None = None,
        pieces: int | None = None,
    ):
        super().__init__(column, dialect, cluster, pieces)
        if window < hop:
            raise UserError(f"data.frames.window={window}: must be at least data.frames.hop={hop}")
        self.rate, self.mels, self.window, self.hop = rate, mels, window, hop
        self.stack, self.normalize, self.longest = stack, normalize, longest
        self.mean, self.std = mean, std
        self.is_adapted = False  # whether the settings are those of initial weights

    @property
    def seconds(self) -> float:
        """Seconds between positions."""
        return self.stack * self.hop

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """Return this preprocessor with the tables of another one, `own`; print a line if that normalizes otherwise."""
        if own.normalize != self.normalize:
            unused = f"data.frames.normalize={own.normalize}"
            screen.say(f"recordings are normalized as for the initial weights ({self.normalize}): {unused} is not used")
        adapted = super().adapted(own)
        adapted.is_adapted = True
        return adapted

    def fit(self, x: pd.DataFrame) -> None:
        """Compute mean and standard deviation of each band over all frames, for normalize=global."""
        if self.normalize == "global":
            values = torch.cat(self.log_mels(x))
            self.mean, self.std = values.mean(0).tolist(), values.std(0).clamp(min=1e-3).tolist()

    def grouped(self, rows: Rows) -> Rows:
        """Return rows with the columns mean and std (mels,) of their speaker, for normalize=speaker.

        Raises:
            UserError: the speakers are unknown, or one has fewer than two frames.
        """
        if self.normalize != "speaker" or not len(rows):
            return rows
        if rows.cluster is None:
            what, other = "data.frames.normalize=speaker", "data.frames.normalize=utterance"
            if self.is_adapted:
                what, other = f"the model of init, trained with {what},", "choose another init"
            raise UserError(
                f"{what} needs the speaker of each recording: set data.cluster=COLUMN (for data=audio_table), or "
                f"{other}"
            )
        moments = np.empty((len(rows), 2), dtype=object)
        for name in dict.fromkeys(rows.cluster):
            own = np.flatnonzero(rows.cluster == name)
            for index, values in enumerate(self._moments(rows.x.iloc[own], name)):
                for row in own:
                    moments[row, index] = values
        return replace(rows, x=rows.x.assign(mean=moments[:, 0], std=moments[:, 1]))

    def _moments(self, x: pd.DataFrame, name: str) -> np.ndarray:
        """Return mean and standard deviation of each band over all frames of a speaker (2, mels), cached."""

        def moments() -> list[np.ndarray]:
            frames = torch.cat(self.log_mels(x)).double()
            if len(frames) < 2:
                raise UserError(
                    f"data.frames.normalize=speaker: the recordings of {name} have {len(frames)} frame in this split, "
                    "but 2 are needed: remove them, or set data.frames.normalize=utterance"
                )
            return [torch.stack([frames.mean(0), frames.std(0, correction=0).clamp(min=0.1)]).float().numpy()]

        empty = np.zeros((0, self.mels), np.float32)
        return np.array(recordings.cached_rows("speakers", repr(self._settings()), x, moments, empty)[0])

    def read(self, path: str, on_error: str = "raise") -> Inputs:
        """Read recordings, as the base class does; with normalize=speaker, they must have the column of speakers."""
        given = super().read(path, on_error)
        if self.normalize != "speaker":
            return given
        if given.cluster is None:
            raise UserError(
                f"input={path} has no column {self.cluster}, but this model normalizes recordings per speaker: give a "
                "manifest with this column, with the same name in all rows if they are of one speaker"
            )
        return replace(given, x=self.grouped(Rows(given.x, cluster=given.cluster())).x)

    def encode(self, x: pd.DataFrame) -> Frames:
        """Return standardized frames (V, stack, mels) of all utterances, float16; they are cached.

        With normalize=speaker, x has the columns of `grouped`.

        Raises:
            UserError: an utterance is shorter than a frame or longer than the limit.
        """
        context = math.ceil(self.longest / self.seconds)
        seconds = np.array([len(values) for values in x["audio"]]) / x["rate"].to_numpy()
        if (wrong := np.flatnonzero(seconds < self.window)).size:
            raise UserError(f"{x['file'].iloc[wrong[0]]} is shorter than a frame of data.frames.window={self.window} s")
        recordings.check_longest(x, self.longest)
        empty = np.zeros((0, self.stack, self.mels), np.float16)
        settings, moments = repr(self._settings()), [(None, None)] * len(x)
        if self.normalize == "speaker" and len(x):
            moments = list(zip(x["mean"], x["std"], strict=True))
            settings += hashlib.sha256(np.stack(moments).tobytes()).hexdigest()
        values, starts = recordings.cached_rows(
            "frames", settings, x, lambda: list(map(self._stack, self.log_mels(x), *zip(*moments))), empty
        )
        return Frames(values, starts, context)

    def positions(self, lengths: np.ndarray) -> np.ndarray:
        return lengths

    def __call__(self, x: Tensor) -> Tensor:
        """Convert to float32; `encode` has standardized the frames."""
        return x.float()

    def log_mels(self, x: pd.DataFrame) -> list[Tensor]:
        """Return the log-mel spectrogram (T, mels) of each recording, not standardized."""
        from transformers.audio_utils import mel_filter_bank

        size, hop = round(self.window * self.rate), round(self.hop * self.rate)
        points = 2 ** math.ceil(math.log2(size))
        filters = mel_filter_bank(
            points // 2 + 1,
            self.mels,
            0.0,
            self.rate / 2,
            self.rate,
            norm=None,
            mel_scale="htk",
            triangularize_in_mel_space=True,
        )
        filters, window = torch.from_numpy(filters).float(), torch.hann_window(size, periodic=False)
        waves = recordings.waves_at(x, self.rate)
        lengths = np.array([max(1, 1 + (len(wave) - size) // hop) for wave in waves])
        frames: list[Tensor] = [torch.empty(0)] * len(waves)
        order = np.argsort(lengths)
        for start in range(0, len(order), CHUNK):
            rows = order[start : start + CHUNK]
            batch = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(waves[row]) for row in rows], batch_first=True)
            batch = F.pad(batch, (0, max(0, size - batch.shape[1])))
            batch = batch.unfold(1, size, hop) * window
            spectrum = torch.fft.rfft(batch, points)
            power = spectrum.real.square().add_(spectrum.imag.square())
            logs = (power @ filters).clamp(min=FLOOR).log()
            for index, row in enumerate(rows):
                frames[row] = logs[index, : lengths[row]].clone()
        return frames

    def to_images(self, x: Tensor) -> Tensor:
        """Convert a batch (B, T, stack, mels) to spectrogram images (B, 1, mels, T * stack), low bands at the bottom.

        Values are from 0, black, to 1, white.
        """
        return ((x.flatten(1, 2).transpose(1, 2).flip(1)[:, None] + RANGE) / (2 * RANGE)).clamp(0, 1)

    def flat(self, x: Frames) -> np.ndarray:
        """Return mean and standard deviation of each band over each half of an utterance (N, 4 * mels)."""
        rows = []
        for start, stop in zip(x.starts, x.starts[1:]):
            frames = x.values[start:stop].astype(np.float32).reshape(-1, self.mels)
            rows.append(np.concatenate([s for half in np.array_split(frames, 2) for s in (half.mean(0), half.std(0))]))
        return np.stack(rows)

    def state(self) -> dict[str, Any]:
        return {"kind": "speech", **self._settings(), **self.table_state()}

    def _settings(self) -> dict[str, Any]:
        """Settings that the frames depend on."""
        names = ("rate", "mels", "window", "hop", "stack", "normalize", "longest", "mean", "std")
        return {name: getattr(self, name) for name in names}

    def _stack(self, frames: Tensor, mean: np.ndarray | None = None, std: np.ndarray | None = None) -> np.ndarray:
        """Standardize frames (T, mels) and stack them, padded with zeros: (ceil(T / stack), stack, mels), float16.

        Args:
            frames: log-mel frames of an utterance.
            mean: mean of each band over the speaker; None for that over the utterance.
            std: standard deviation of each band.
        """
        if self.normalize == "global":
            frames = (frames - torch.tensor(self.mean)) / torch.tensor(self.std)
        elif mean is not None:
            frames = (frames - torch.from_numpy(mean)) / torch.from_numpy(std)
        else:
            frames = (frames - frames.mean(0)) / frames.std(0, correction=0).clamp(min=0.1)
        frames = F.pad(frames, (0, 0, 0, -len(frames) % self.stack))
        return frames.view(-1, self.stack, self.mels).half().numpy()
