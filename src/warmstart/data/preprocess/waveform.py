"""Preprocessor of speech for models of raw waveforms, at the sampling rate of the model."""

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

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.ranges import Seconds
from warmstart.data.readers import recordings
from warmstart.data.storage.ragged import Frames

TINY = 1e-7  # added to the variance, as in transformers
POINTS = 512  # of the Fourier transform for images
HOP = 0.01  # seconds between columns of images
QUIET, LOUD = -20.0, 50.0  # decibels of black and white in images


class Preprocessor(recordings.TakesRecordings):
    """Raw inputs are tables with the columns audio (waveforms), rate (Hz) and file.

    Args:
        rate: sampling rate of the model in Hz, to which recordings are resampled.
        kernel: kernel sizes of the model's convolutions.
        stride: strides of the model's convolutions.
        normalize: whether to standardize each recording.
        masked: whether the model takes an attention mask; exported for transformers.
        longest: maximum length of a recording in seconds.
        column: column of recordings in tables.
        dialect: format of the tables.
        cluster: column of clusters in tables.
        pieces: maximum number of labels of transcripts, for CTC; None for characters.
    """

    abilities: ClassVar = recordings.TakesRecordings.abilities | {"to_images"}
    spectral: ClassVar = False
    held_out_batch: ClassVar = 8  # the first convolutions need much memory

    def __init__(
        self,
        rate: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        normalize: bool = True,
        masked: bool = True,
        longest: Seconds = 20.0,
        column: str | None = None,
        dialect: dict[str, Any] | None = None,
        cluster: str | None = None,
        pieces: int | None = None,
    ):
        super().__init__(column, dialect, cluster, pieces)
        self.rate, self.kernel, self.stride = rate, list(kernel), list(stride)
        self.normalize, self.masked, self.longest = normalize, masked, longest

    @property
    def seconds(self) -> float:
        """Seconds between frames of the model."""
        return math.prod(self.stride) / self.rate

    @property
    def is_padding_invariant(self) -> bool:
        """Whether padding does not change results in transformers, which needs a mask for its normalization."""
        return self.masked

    def adapted(self, own: Any) -> Preprocessor:
        """Return this preprocessor with the length limit and tables of another one, `own`.

        A line is printed if `own` normalizes over other than single recordings.
        """
        if own.normalize in ("speaker", "global"):
            screen.say(f"data.frames.normalize={own.normalize} is not used: the model of init takes waveforms")
        adapted = super().adapted(own)
        adapted.longest = own.longest
        return adapted

    def fit(self, x: pd.DataFrame) -> None:
        """Do nothing: all settings come from the model."""

    def encode(self, x: pd.DataFrame) -> Frames:
        """Return samples (V,) of all recordings, float32; they are cached.

        Raises:
            UserError: a recording is shorter than one of the model's frames, or longer than the limit.
        """
        recordings.check_longest(x, self.longest)
        settings, empty = f"waveform {self.rate} {self.normalize}", np.zeros(0, np.float32)
        values, starts = recordings.cached_rows(
            "waves", settings, x, lambda: list(map(self._standardize, recordings.waves_at(x, self.rate))), empty
        )
        lengths = np.diff(starts)
        if (wrong := np.flatnonzero(self.positions(lengths) < 1)).size:
            raise UserError(
                f"{x['file'].iloc[wrong[0]]} is shorter than one frame of the model: it has {lengths[wrong[0]]} "
                f"samples at {self.rate} Hz; {len(wrong):,} of {len(x):,} recordings are like this: remove them"
            )
        return Frames(values, starts, int(lengths.max(initial=1)))

    def positions(self, lengths: np.ndarray) -> np.ndarray:
        """Return the number of frames of the model for numbers of samples (N,)."""
        for kernel, stride in zip(self.kernel, self.stride):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def __call__(self, x: Tensor) -> Tensor:
        """Return x: `encode` has standardized the samples."""
        return x

    def to_images(self, x: Tensor) -> Tensor:
        """Convert a batch (B, S) to spectrogram images (B, 1, F, T), low frequencies at the bottom."""
        window = torch.hann_window(POINTS, device=x.device)
        found = torch.stft(x, POINTS, round(HOP * self.rate), window=window, pad_mode="constant", return_complex=True)
        decibels = 20 * found.abs().clamp(min=1e-6).log10().flip(1)[:, None]
        return ((decibels - QUIET) / (LOUD - QUIET)).clamp(0, 1)

    def export(self, folder: Path) -> None:
        """Write the config of a feature extractor of transformers."""
        settings = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": self.rate,
            "do_normalize": self.normalize,
            "padding_value": 0.0,
            "padding_side": "right",
            "return_attention_mask": self.masked,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    def exported_inputs(self, folder: Path) -> Callable[[pd.DataFrame], dict[str, Tensor]]:
        """Return a function that preprocesses raw recordings with the exported config and transformers only."""
        from transformers import AutoFeatureExtractor

        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        settings = {"sampling_rate": self.rate, "padding": True, "return_tensors": "pt"}
        return lambda x: dict(extractor([np.array(wave) for wave in recordings.waves_at(x, self.rate)], **settings))

    def probes(self, target: str | None) -> pd.DataFrame:
        """Return recordings of noise of different lengths to verify an exported model with."""
        generator = np.random.default_rng(0)
        waves = [generator.normal(0, 0.1, round(self.rate * length)).astype(np.float32) for length in (0.5, 0.8, 0.3)]
        files = [f"noise {number}" for number in range(len(waves))]
        return pd.DataFrame({"audio": waves, "rate": self.rate, "file": files})

    def state(self) -> dict[str, Any]:
        names = ("rate", "kernel", "stride", "normalize", "masked", "longest")
        return {"kind": "waveform", **{name: getattr(self, name) for name in names}, **self.table_state()}

    def _standardize(self, wave: np.ndarray) -> np.ndarray:
        """Standardize a waveform (S,), if `normalize` is set."""
        return (wave - wave.mean()) / np.sqrt(wave.var() + TINY) if self.normalize else wave
