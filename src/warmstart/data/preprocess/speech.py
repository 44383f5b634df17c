"""Speech: waveforms become log-mel frames once, a few of them to a position."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.errors import UserError
from warmstart.core.ranges import Count, Positive, Seconds
from warmstart.data.preprocess.frames import Frames
from warmstart.data.readers import recordings
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import Ragged

CHUNK = 256  # waveforms transformed at a time
FLOOR = 1e-6  # of the power, before the logarithm
RANGE = 2.5  # standard deviations around the mean, between black and white


class Preprocessor(recordings.TakesRecordings):
    """Raw inputs are tables with the columns audio (waveforms), rate (Hz) and file.

    Args:
        rate: of the waveforms, in Hz; others are resampled.
        mels: bands, evenly spaced on the mel scale from 0 Hz to half the rate.
        window: of a frame, in seconds.
        hop: from frame to frame, in seconds.
        stack: frames that make up one position.
        normalise: each band to mean 0 and standard deviation 1 over each utterance, or by global statistics.
        longest: of an utterance, in seconds.
        mean: the fitted state of normalise=global, one number per band.
        std: likewise.
        column: of recordings, in the user's tables.
        dialect: how these tables are written.
    """

    abilities: ClassVar = recordings.TakesRecordings.abilities | {"drawn"}

    def __init__(
        self,
        rate: Count = 16_000,
        mels: Count = 40,
        window: Positive = 0.025,
        hop: Positive = 0.01,
        stack: Count = 2,
        normalise: Literal["utterance", "global"] = "utterance",
        longest: Seconds = 20.0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        column: str | None = None,
        dialect: dict[str, Any] | None = None,
    ):
        super().__init__(column, dialect)
        if window < hop:
            raise UserError(f"data.frames.window={window}: must be at least data.frames.hop={hop}")
        self.rate, self.mels, self.window, self.hop = rate, mels, window, hop
        self.stack, self.normalise, self.longest = stack, normalise, longest
        self.mean, self.std = mean, std

    @property
    def seconds(self) -> float:
        """From one position to the next."""
        return self.stack * self.hop

    def fit(self, x: pd.DataFrame) -> None:
        """Mean and standard deviation of each band over all frames, where these are to be used."""
        if self.normalise == "global":
            values = torch.cat(self._frames(x))
            self.mean, self.std = values.mean(0).tolist(), values.std(0).clamp(min=1e-3).tolist()

    def encode(self, x: pd.DataFrame) -> Frames:
        """Normalised frames (V, stack, mels) of all utterances, float16; made once, then found in the cache.

        Raises:
            UserError: an utterance is shorter than a frame or longer than the limit.
        """
        context = math.ceil(self.longest / self.seconds)
        seconds = np.array([len(values) for values in x["audio"]]) / x["rate"].to_numpy()
        if (wrong := np.flatnonzero(seconds < self.window)).size:
            raise UserError(f"{x['file'].iloc[wrong[0]]} is shorter than a frame of data.frames.window={self.window} s")
        recordings.check_longest(x, self.longest)

        def make(folder: Path) -> None:
            rows = [self._stacked(frames) for frames in self._frames(x)]
            starts = np.cumsum([0, *map(len, rows)])
            values = torch.cat(rows).numpy() if rows else np.zeros((0, self.stack, self.mels), np.float16)
            np.save(folder / "values.npy", values)
            np.save(folder / "starts.npy", starts)

        name = cache.key(repr(self._settings()), *recordings.digest(x))
        values, starts = cache.entry("frames", name, make, lambda found: cache.arrays(found, ("values", "starts")))
        return Frames(values, np.asarray(starts), context)

    def align(self, x: pd.DataFrame, y: Any, target: str) -> tuple[Frames, Ragged | None]:
        """Frames, and the label numbers of each transcript.

        Raises:
            UserError: a transcript has more labels than its frames can hold.
        """
        frames = self.encode(x)
        if y is None:
            return frames, None
        remedy = ", or lower data.frames.stack or data.frames.hop"
        return frames, recordings.beside(x, frames.lengths, y, self.seconds, remedy)

    def __call__(self, x: Tensor) -> Tensor:
        """Float32; encoding has scaled everything."""
        return x.float()

    def drawn(self, x: Tensor) -> Tensor:
        """A batch (B, T, stack, mels) as pictures of spectrograms (B, 1, mels, T * stack), low bands below.

        From 0, black, to 1, white.
        """
        return ((x.flatten(1, 2).transpose(1, 2).flip(1)[:, None] + RANGE) / (2 * RANGE)).clamp(0, 1)

    def flat(self, x: Frames) -> np.ndarray:
        """Mean and standard deviation of each band over each half of an utterance (N, 4 mels)."""
        rows = []
        for start, stop in zip(x.starts, x.starts[1:]):
            frames = x.values[start:stop].astype(np.float32).reshape(-1, self.mels)
            rows.append(np.concatenate([s for half in np.array_split(frames, 2) for s in (half.mean(0), half.std(0))]))
        return np.stack(rows)

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"kind": "speech", **self._settings(), **self.table_state()}

    def _settings(self) -> dict[str, Any]:
        """What the frames of a recording depend on."""
        names = ("rate", "mels", "window", "hop", "stack", "normalise", "longest", "mean", "std")
        return {name: getattr(self, name) for name in names}

    def _stacked(self, frames: Tensor) -> Tensor:
        """Normalised frames (T, mels) as positions (ceil(T / stack), stack, mels), zeros at the end."""
        if self.normalise == "global":
            frames = (frames - torch.tensor(self.mean)) / torch.tensor(self.std)
        else:
            frames = (frames - frames.mean(0)) / frames.std(0, correction=0).clamp(min=0.1)
        frames = F.pad(frames, (0, 0, 0, -len(frames) % self.stack))
        return frames.view(-1, self.stack, self.mels).half()

    def _frames(self, x: pd.DataFrame) -> list[Tensor]:
        """The logarithm of the mel power spectrum of each waveform, (T, mels)."""
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
            for place, row in enumerate(rows):
                frames[row] = logs[place, : lengths[row]].clone()
        return frames
