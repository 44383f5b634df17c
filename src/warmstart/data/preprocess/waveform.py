"""Speech for models of raw waveforms: samples at the model's rate, made once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from warmstart.core.errors import UserError
from warmstart.core.ranges import Seconds
from warmstart.data.preprocess.frames import Frames
from warmstart.data.readers import recordings
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import Ragged

TINY = 1e-7  # added to the variance, as transformers does
POINTS = 512  # of the Fourier transform that is drawn
HOP = 0.01  # seconds, between what is drawn
QUIET, LOUD = -20.0, 50.0  # decibels of what is drawn black, and white


class Preprocessor(recordings.TakesRecordings):
    """Raw inputs are tables with the columns audio (waveforms), rate (Hz) and file.

    Args:
        rate: that the model takes, in Hz; recordings at another one are resampled.
        kernel: samples, or frames below, that each of the model's convolutions sees at once.
        stride: by how many it moves on.
        normalise: each recording to mean 0 and variance 1.
        masked: the model was trained to be told where recordings end; transformers is to know.
        longest: of a recording, in seconds.
        column: of recordings, in the user's tables.
        dialect: how these tables are written.
    """

    abilities: ClassVar = recordings.TakesRecordings.abilities | {"drawn"}
    spectral: ClassVar = False
    held_out_batch: ClassVar = 8  # the first convolutions make hundreds of channels of every few samples

    def __init__(
        self,
        rate: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        normalise: bool = True,
        masked: bool = True,
        longest: Seconds = 20.0,
        column: str | None = None,
        dialect: dict[str, Any] | None = None,
    ):
        super().__init__(column, dialect)
        self.rate, self.kernel, self.stride = rate, list(kernel), list(stride)
        self.normalise, self.masked, self.longest = normalise, masked, longest

    @property
    def seconds(self) -> float:
        """From one of the model's frames to the next."""
        return math.prod(self.stride) / self.rate

    @property
    def pads_alike(self) -> bool:
        """Whether transformers leaves padding out; else its scaling of a recording depends on the others in a batch."""
        return self.masked

    def adapted(self, own: Any) -> Preprocessor:
        """The same under the limit of a data set's `own` preprocessor, and for its tables."""
        adapted = super().adapted(own)
        adapted.longest = own.longest
        return adapted

    def fit(self, x: pd.DataFrame) -> None:
        """Nothing: the model says it all."""

    def encode(self, x: pd.DataFrame) -> Frames:
        """Samples (V,) of all recordings, float32; made once, then found in the cache.

        Raises:
            UserError: a recording is shorter than one of the model's frames, or longer than the limit.
        """
        recordings.check_longest(x, self.longest)

        def make(folder: Path) -> None:
            waves = [self._scaled(wave) for wave in recordings.waves_at(x, self.rate)]
            np.save(folder / "values.npy", np.concatenate(waves) if waves else np.zeros(0, np.float32))
            np.save(folder / "starts.npy", np.cumsum([0, *map(len, waves)]))

        name = cache.key(f"waveform {self.rate} {self.normalise}", *recordings.digest(x))
        values, starts = cache.entry("waves", name, make, lambda found: cache.arrays(found, ("values", "starts")))
        lengths = np.diff(starts)
        if (wrong := np.flatnonzero(self._frames(lengths) < 1)).size:
            raise UserError(
                f"{x['file'].iloc[wrong[0]]} is shorter than one frame of the model: it has {lengths[wrong[0]]} "
                f"samples at {self.rate} Hz; {len(wrong):,} of {len(x):,} recordings are like this: remove them"
            )
        return Frames(values, np.asarray(starts), int(lengths.max(initial=1)))

    def align(self, x: pd.DataFrame, y: Any, target: str) -> tuple[Frames, Ragged | None]:
        """Samples, and the label numbers of each transcript.

        Raises:
            UserError: a transcript has more labels than the model's frames can hold.
        """
        waves = self.encode(x)
        if y is None:
            return waves, None
        return waves, recordings.beside(x, self._frames(waves.lengths), y, self.seconds, "")

    def __call__(self, x: Tensor) -> Tensor:
        """Unchanged: encoding has scaled everything."""
        return x

    def drawn(self, x: Tensor) -> Tensor:
        """A batch (B, S) as pictures of spectrograms (B, 1, bands, T), low bands below, from 0, black, to 1, white."""
        window = torch.hann_window(POINTS, device=x.device)
        found = torch.stft(x, POINTS, round(HOP * self.rate), window=window, pad_mode="constant", return_complex=True)
        decibels = 20 * found.abs().clamp(min=1e-6).log10().flip(1)[:, None]
        return ((decibels - QUIET) / (LOUD - QUIET)).clamp(0, 1)

    def export(self, folder: Path) -> None:
        """Write the settings as transformers reads them."""
        settings = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": self.rate,
            "do_normalize": self.normalise,
            "padding_value": 0.0,
            "padding_side": "right",
            "return_attention_mask": self.masked,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    def exported_inputs(self, folder: Path) -> Callable[[pd.DataFrame], dict[str, Tensor]]:
        """What makes padded inputs of raw recordings by the exported file alone, as a user of transformers does."""
        from transformers import AutoFeatureExtractor

        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        settings = {"sampling_rate": self.rate, "padding": True, "return_tensors": "pt"}
        return lambda x: dict(extractor([np.array(wave) for wave in recordings.waves_at(x, self.rate)], **settings))

    def probes(self, target: str | None) -> pd.DataFrame:
        """Recordings of noise, of different lengths, to compare an exported model on."""
        generator = np.random.default_rng(0)
        waves = [generator.normal(0, 0.1, round(self.rate * length)).astype(np.float32) for length in (0.5, 0.8, 0.3)]
        files = [f"noise {number}" for number in range(len(waves))]
        return pd.DataFrame({"audio": waves, "rate": self.rate, "file": files})

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        names = ("rate", "kernel", "stride", "normalise", "masked", "longest")
        return {"kind": "waveform", **{name: getattr(self, name) for name in names}, **self.table_state()}

    def _scaled(self, wave: np.ndarray) -> np.ndarray:
        """A waveform (S,) of mean 0 and variance 1, where that is what the model takes."""
        return (wave - wave.mean()) / np.sqrt(wave.var() + TINY) if self.normalise else wave

    def _frames(self, samples: np.ndarray) -> np.ndarray:
        """How many of the model's frames so many samples (N,) have."""
        for kernel, stride in zip(self.kernel, self.stride):
            samples = (samples - kernel) // stride + 1
        return samples
