"""Config node and preprocessor of Whisper (Radford et al. 2022, "Robust Speech Recognition")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.huggingface.configs.speech import OFF, PREPROCESSOR, PROCESSOR
from warmstart.huggingface.configs.text import TOKENIZERS
from warmstart.huggingface.files import read_json

TARGET = "warmstart.huggingface.whisper.HuggingFaceWhisper"
AUTO, TASK = "AutoModelForSpeechSeq2Seq", "seq2seq_lm"
GENERATION = "generation_config.json"
EXTRACTOR = "WhisperFeatureExtractor"
FEATURES = {  # settings of the feature extractor that change the features, with the defaults of transformers
    "feature_size": 80,
    "sampling_rate": 16_000,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
}
REPLACED = ("forced_decoder_ids", "language", "task", "transformers_version")  # given by the preprocessor
ENGLISH_SIZE = 51_864  # vocabulary of the models for English only, as in transformers


def describes(architecture: dict[str, Any]) -> bool:
    """Return whether the architecture is a Whisper."""
    return architecture.get("model_type") == "whisper"


def node_of(
    word: str, folder: Path, architecture: dict[str, Any], names: list[str], pooling: str | None
) -> dict[str, Any]:
    """Return the config node of the backbone, which pools the mean of the frames.

    Raises:
        UserError: it has no decoder, tokenizer or feature extractor, or they do not fit together.
    """
    if pooling not in (None, "mean"):
        raise UserError(f"backbone.pooling={pooling}: a whisper supports mean pooling only: remove the setting")
    if not any(name.removeprefix("model.").startswith("decoder.") for name in names):
        raise UserError(f"init={word}: this whisper has no decoder, so it cannot transcribe: use the complete model")
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"init={word}: {folder} has no tokenizer: add the tokenizer.json of the model")
    features = features_of(word, folder)
    frames = 2 * int(architecture.get("max_source_positions", 1500))
    found = features["chunk_length"] * features["sampling_rate"] // features["hop_length"]
    mels = architecture.get("num_mel_bins", 80)
    if (found, features["feature_size"]) != (frames, mels):
        raise UserError(
            f"init={word}: the model takes {frames} frames of {mels} mel bands, but its "
            f"feature extractor computes {found} of {features['feature_size']}: it belongs to another model"
        )
    return {"_target_": TARGET, "architecture": {**architecture, **OFF}, "generation": generation_of(word, folder)}


def generation_of(word: str, folder: Path) -> dict[str, Any]:
    """Return the settings of generation, without language and task; empty if the folder has none."""
    path = folder / GENERATION
    found = read_json(word, path) if path.exists() else {}
    return {key: value for key, value in found.items() if key not in REPLACED}


def features_of(word: str, folder: Path) -> dict[str, int]:
    """Return the settings of the feature extractor.

    Raises:
        UserError: there is none, it is of another kind, or a setting is not a positive integer.
    """
    path = folder / PREPROCESSOR
    if path.exists():
        settings = read_json(word, path)
    elif (folder / PROCESSOR).exists():
        path = folder / PROCESSOR
        settings = read_json(word, path).get("feature_extractor", {})
    else:
        raise UserError(f"init={word}: {folder} has no {PREPROCESSOR}, with the settings of the features: add it")
    kind = settings.get("feature_extractor_type", EXTRACTOR)
    if kind != EXTRACTOR or settings.get("do_normalize") or settings.get("dither"):
        what = f"a {kind}" if kind != EXTRACTOR else "one with do_normalize or dither"
        raise UserError(f"init={word}: {path} is for {what}, but a whisper needs the plain {EXTRACTOR}")
    found = {key: settings.get(key, value) for key, value in FEATURES.items()}
    for key, value in found.items():
        if type(value) is not int or value < 1:
            raise UserError(f"init={word}: {path} has {key}={value}: it must be a positive integer")
    return found


def preprocessor_of(
    word: str, folder: Path, architecture: dict[str, Any], tokenizer: dict[str, Any], labels: int
) -> dict[str, Any]:
    """Return the state of a preprocessor with the tokenizer and the settings of the model.

    Args:
        tokenizer: state of a preprocessor of texts with the tokenizer of the model.
        labels: number of rows of the embedding of the decoder.
    """
    path = folder / GENERATION
    given = read_json(word, path) if path.exists() else {}
    return {
        "kind": "whisper",
        "language": given.get("language"),
        "task": given.get("task") or "transcribe",
        "features": features_of(word, folder),
        "context": int(architecture.get("max_target_positions", 448)),
        "multilingual": bool(given.get("is_multilingual", labels != ENGLISH_SIZE)),
        **{name: tokenizer[name] for name in ("tokenizer", "roles")},
        **({"files": tokenizer["files"]} if tokenizer.get("files") else {}),
    }
