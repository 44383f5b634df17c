"""Features and labels of a Whisper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import transformers
from tests.huggingface.tiny_whisper import RATE, saved_whisper

from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.data.preprocess.whisper import Preprocessor
from warmstart.data.sources.audio.spoken_digits import DIGITS
from warmstart.huggingface.load import open_hub
from warmstart.training.components import build_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_whisper(tmp_path_factory.mktemp("models") / "whisper", seconds=30)


def test_features_are_those_of_transformers_for_recordings_of_all_lengths(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    generator = np.random.default_rng(0)
    lengths = [400, 16_000, 16_001, 479_700, 480_000]
    waves = [generator.normal(0, 0.1, length).astype(np.float32) for length in lengths]
    x = pd.DataFrame({"audio": waves, "rate": RATE, "file": list("abcde")})
    encoded = rebuild(open_hub(f"hf:{folder}").preprocessor).encode(x)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    expected = extractor(waves, sampling_rate=RATE, return_tensors="pt").input_features.transpose(1, 2)
    assert encoded.shape == (5, 3000, 80)
    found, mask = encoded.padded(slice(None))
    assert mask is None
    assert (found - expected).abs().max() < 1e-5
    assert len(encoded.values) < 2 * 3000 + 300  # silence is not stored
    longer = x.assign(audio=[np.zeros(480_001, np.float32)] * 5)
    with pytest.raises(UserError, match=r"a is 30\.0 s long; with it, 5 recordings are longer than the 30 s"):
        rebuild(open_hub(f"hf:{folder}").preprocessor).encode(longer)


def test_labels_are_those_of_transformers(folder):
    fitted = rebuild(open_hub(f"hf:{folder}").preprocessor)
    for language, task, timestamps in (("german", "translate", False), ("zh", "transcribe", True)):
        adapted = fitted.adapted(Preprocessor(language, task, timestamps))
        settings = {"language": language, "task": task, "predict_timestamps": timestamps}
        tokenizer = transformers.WhisperTokenizer.from_pretrained(folder, **settings)
        text = "low <|0.10|> high" if timestamps else "low high"
        rows, mask = adapted.labels([text, "low"], ["a", "b"]).padded(slice(None))
        assert rows[0].tolist() == tokenizer(text).input_ids[1:]
        assert rows[1][~mask[1]].eq(-100).all()
        assert adapted.decode(rows[0].tolist()) == text
        assert rebuild(adapted.state()).prefix == adapted.prefix
    adapted, text = fitted.adapted(Preprocessor("de")), "a<|endoftext|>b"
    assert adapted.decode(adapted.labels([text], ["a"])[:][0].tolist()) == text


def test_an_english_model_has_no_language(folder):
    fitted = rebuild({**open_hub(f"hf:{folder}").preprocessor, "multilingual": False})
    assert fitted.adapted(Preprocessor()).prefix == (fitted.backend_tokenizer.token_to_id("<|notimestamps|>"),)
    with pytest.raises(UserError, match="this Whisper is for English only"):
        fitted.adapted(Preprocessor("de"))


def test_spoken_digits_have_texts_for_a_whisper(composed):
    words = ("data=spoken_digits", "data/frames=whisper", "data.frames.language=en", "data.connect=[2,3]")
    source = build_source(composed("stage=finetune", "experiment=transcribe", *words))
    assert isinstance(source.preprocessor(), Preprocessor)
    splits = source.load("sequence")
    assert {len(text.split()) for text in splits.train.y} == {2, 3}
    assert {word for text in splits.test.y for word in text.split()} == set(DIGITS)


def test_the_features_of_no_model_are_refused():
    with pytest.raises(UserError, match="set init=hf:NAME_OR_DIR"):
        Preprocessor().fit(pd.DataFrame())
