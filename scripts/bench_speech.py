"""Compare the throughput of log-mel frames with SpecAugment with a DataLoader of single files, as ratios.

    python scripts/bench_speech.py [TURNS]

Ours are the batches of `experiment=speech`: cached frames with frequency and time masks; a first epoch, which computes
the frames from the waveforms, is measured separately. The baseline is common practice in two workers: soundfile reads a
WAV, log-mel frames are computed as in torchaudio's MelSpectrogram (not installed), FrequencyMasking and TimeMasking are
applied twice each, and a batch is padded. Run it on an idle machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import pandas as pd
import soundfile
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers.audio_utils import mel_filter_bank

from warmstart.core import screen
from warmstart.data.loader import GatherLoader
from warmstart.data.preprocess.speech import Preprocessor
from warmstart.data.sources.audio.spoken_digits import read_packaged
from warmstart.data.transforms.augment import Augment
from warmstart.data.transforms.frames import FrequencyMasks, TimeMasks
from warmstart.training.memory import keep_freed_memory

BATCH, EPOCHS, REPEATS, GOAL = 64, 20, 4, 20
RATE, MELS, SIZE, HOP, POINTS = 8000, 40, 200, 80, 256  # as conf/data/spoken_digits.yaml has it, in samples
FREQUENCY, TIME, STACK = 8, 10, 2


class OneByOne(Dataset):
    """Sound files, each read, transformed and changed by itself when it is asked for."""

    def __init__(self, files: list[Path]):
        self.files = files
        filters = mel_filter_bank(POINTS // 2 + 1, MELS, 0.0, RATE / 2, RATE, norm=None, mel_scale="htk")
        self.filters, self.window = torch.from_numpy(filters).float(), torch.hann_window(SIZE)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """Frames (T, mels) of mean 0 and standard deviation 1 per band."""
        wave = torch.from_numpy(soundfile.read(self.files[index], dtype="float32")[0])
        spectrum = torch.stft(wave, POINTS, HOP, SIZE, self.window, return_complex=True)
        logs = (spectrum.abs().square().T @ self.filters + 1e-6).log()
        frames = (logs - logs.mean(0)) / logs.std(0).clamp(min=0.1)
        for _ in range(2):
            frames = masked(masked(frames, 1, FREQUENCY), 0, min(TIME * STACK, len(frames) // 5))
        return frames


def masked(x: Tensor, side: int, most: int) -> Tensor:
    """Up to `most` neighbouring rows or columns become 0, as torchaudio's `mask_along_axis` writes it."""
    width = torch.rand(1) * most
    start = (torch.rand(1) * (x.shape[side] - width)).long()
    places = torch.arange(x.shape[side])
    hidden = (places >= start) & (places < start + width.long())
    return x.masked_fill(hidden[:, None] if side == 0 else hidden, 0)


def padded(rows: list[Tensor]) -> Tensor:
    """A batch (B, T, mels)."""
    return pad_sequence(rows, batch_first=True)


def rate(batches: Iterable[Tensor]) -> float:
    """Utterances a second, the first batches left out, by which workers fill their queues."""
    count, started = 0, time.perf_counter()
    for number, batch in enumerate(batches):
        if number == 4:
            count, started = 0, time.perf_counter()
        count += len(batch)
    return count / (time.perf_counter() - started)


def from_waveforms(table: pd.DataFrame, augment: Augment) -> float:
    """Utterances a second of a first epoch, which makes the frames and keeps them."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WARMSTART_CACHE"] = folder
        started = time.perf_counter()
        for batch in GatherLoader(augment.preprocessor.encode(table), None, BATCH, seed=0):
            augment(batch.x)
        return len(table) / (time.perf_counter() - started)


def main(turns: int) -> None:
    """Take turns; a ratio is the median over them."""
    keep_freed_memory()  # build_trainer does this for the process, so both sides have it from the start
    table = read_packaged()
    masks = {"frequency_masks": FrequencyMasks(FREQUENCY), "time_masks": TimeMasks(TIME)}
    augment = Augment(Preprocessor(rate=RATE, longest=10.0), masks)
    loader = GatherLoader(augment.preprocessor.encode(table), None, BATCH, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.wav" for name in table.file]
        for file, values in zip(files, table.audio):
            soundfile.write(file, values, RATE)
        settings = {"shuffle": True, "num_workers": 2, "persistent_workers": True, "collate_fn": padded}
        one_by_one = DataLoader(OneByOne(files * REPEATS), BATCH, **settings)
        rates = []
        for _ in range(turns + 1):
            theirs = rate(one_by_one)
            ours = rate(augment(batch.x) for _ in range(EPOCHS) for batch in loader)
            rates.append((ours, from_waveforms(table, augment), theirs))
    theirs = median(turn[2] for turn in rates[1:])
    for number, what in enumerate(("cached frames", "a first epoch, from waveforms")):
        ratio = median(turn[number] / turn[2] for turn in rates[1:])
        ours = median(turn[number] for turn in rates[1:])
        goal = f" (goal {GOAL})" if number == 0 else ""
        screen.say(f"{what}: {ours:,.0f} against {theirs:,.0f} utterances a second, {ratio:.1f} times{goal}")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
