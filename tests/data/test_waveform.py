"""Raw waveforms: equal to transformers' feature extractor, and cached."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.data.preprocess.speech import Preprocessor as LogMel
from warmstart.data.preprocess.waveform import Preprocessor
from warmstart.data.sources.audio.spoken_digits import read_packaged
from warmstart.data.transforms.augment import Augment
from warmstart.data.transforms.frames import FrequencyMasks
from warmstart.data.transforms.noise import Noise

pytestmark = pytest.mark.quick

KERNEL, STRIDE = [10, 8, 4], [8, 8, 5]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


def waves(**settings: object) -> Preprocessor:
    return Preprocessor(**{"rate": 8000, "kernel": KERNEL, "stride": STRIDE, **settings})


@pytest.fixture(scope="module")
def digits() -> pd.DataFrame:
    return read_packaged().iloc[[0, 500, 1000]]


@pytest.mark.parametrize("normalize", [True, False])
def test_samples_are_those_of_transformers(digits: pd.DataFrame, normalize: bool):
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=normalize, return_attention_mask=True)
    theirs = extractor(list(digits.audio), sampling_rate=8000, padding=True, return_tensors="pt")
    x, mask = waves(normalize=normalize).encode(digits).padded(slice(0, 3))
    assert torch.allclose(x, theirs.input_values, atol=1e-5)
    assert torch.equal(mask, theirs.attention_mask.bool())


def test_recordings_are_brought_to_the_models_rate_and_found_again(digits: pd.DataFrame, tmp_path: Path):
    one = waves(rate=16_000)
    rows = one.encode(digits)
    assert rows.lengths.tolist() == [2 * len(values) for values in digits.audio]
    assert one.seconds == 0.02
    again = rebuild(json.loads(json.dumps(one.state()))).encode(digits)
    assert np.array_equal(rows.values, again.values)
    assert len(list((tmp_path / "cache" / "waves").iterdir())) == 1


def test_the_data_say_how_long_a_recording_may_be(digits: pd.DataFrame):
    with pytest.raises(UserError, match=r"s long; with it, 3 recordings are longer than data\.frames\.longest=0\.1"):
        waves().adapted(LogMel(longest=0.1)).encode(digits)


def test_recordings_without_a_frame_and_texts_without_room_are_named(digits: pd.DataFrame):
    short = digits.assign(audio=[digits.audio.iloc[0], digits.audio.iloc[1][:257], digits.audio.iloc[2][:258]])
    with pytest.raises(UserError, match=rf"{digits.file.iloc[1]} is shorter than one frame .* 257 samples.*1 of 3"):
        waves().encode(short)
    recordings = waves()
    recordings.fit_transcripts(["a"])
    with pytest.raises(UserError, match=r"text of 2 labels does not fit into its 1 positions of 0\.04 s.*remove them$"):
        recordings.align(short.iloc[2:], ["a"], "text")


def test_changes_of_spectrograms_are_refused_and_noise_is_not(digits: pd.DataFrame):
    with pytest.raises(UserError, match="is for spectrograms"):
        Augment(waves(), {"frequency_masks": FrequencyMasks(3)})
    x = waves().encode(digits)[slice(0, 3)]
    assert 0.05 < (Augment(waves(), {"noise": Noise(0.1)})(x) - x).std() < 0.15


def test_a_tone_is_drawn_at_its_height():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(4000) / 8000)[None]
    picture = waves().to_images(tone)
    assert picture.shape == (1, 1, 257, 51)
    assert (256 - picture[0, 0, :, 10:40].argmax(0) == 64).all()  # 1000 Hz of 4000, low bands below
