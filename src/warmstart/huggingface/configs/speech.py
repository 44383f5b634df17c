"""Config node, preprocessor and labels of a speech model of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.huggingface.files import CARD, read_json

TARGET = "warmstart.huggingface.speech.HuggingFaceSpeech"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
VOCABULARY, TOKENIZER = "vocab.json", "tokenizer_config.json"
EXTRACTOR = "Wav2Vec2FeatureExtractor"
SPACE = "▁"  # marks the space before a word in labels
CONVOLUTIONS = ("conv_kernel", "conv_stride", "feat_extract_norm")
LONGEST = 20.0  # seconds, default
# Random masking of the library, which does not use the seed of the run, and settings of heads that are not loaded.
OFF = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
HEADS = ("id2label", "label2id")


def describes(architecture: dict[str, Any]) -> bool:
    """Return whether transformers has a CTC model of this architecture."""
    from transformers.models.auto import modeling_auto

    return architecture.get("model_type") in modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES


def node_of(
    word: str, folder: Path, architecture: dict[str, Any], names: list[str], pooling: str | None
) -> dict[str, Any]:
    """Return the config node of the backbone, which pools the mean of the frames.

    Raises:
        UserError: it does not take waveforms, changes the number of frames, or has no preprocessor.
    """
    kind = architecture["model_type"]
    missing = [key for key in CONVOLUTIONS if key not in architecture]
    if missing or "squeeze_factor" in architecture or architecture.get("add_adapter"):
        why = f"its {CARD} has no {missing[0]}" if missing else "it merges frames after its convolutions"
        raise UserError(f"init={word}: this {kind} is not supported, because {why}: use a wav2vec 2.0, HuBERT or WavLM")
    if pooling not in (None, "mean"):
        raise UserError(f"backbone.pooling={pooling}: a {kind} supports mean pooling only: remove the setting")
    preprocessor_of(word, folder, architecture)
    kept = {key: value for key, value in architecture.items() if key not in HEADS}
    return {"_target_": TARGET, "architecture": {**kept, **OFF}}


def preprocessor_of(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a preprocessor with the settings of the model.

    Raises:
        UserError: the file is missing, of another kind, or has no sampling rate.
    """
    path, settings = folder / PREPROCESSOR, {}
    if path.exists():
        settings = read_json(word, path)
    elif (folder / PROCESSOR).exists():
        path = folder / PROCESSOR
        settings = read_json(word, path).get("feature_extractor", {})
    else:
        raise UserError(f"init={word}: {folder} has no {PREPROCESSOR}, which has the sampling rate: add it")
    if settings.get("feature_extractor_type", EXTRACTOR) != EXTRACTOR:
        raise UserError(
            f"init={word}: {path} is for a {settings['feature_extractor_type']}, which does not take waveforms"
        )
    rate = settings.get("sampling_rate")
    if type(rate) is not int or rate < 1:
        raise UserError(
            f"init={word}: {path} has sampling_rate={rate}: set it to the rate of the model in Hz, such as 16000"
        )
    return {
        "kind": "waveform",
        "rate": rate,
        "kernel": list(architecture["conv_kernel"]),
        "stride": list(architecture["conv_stride"]),
        "normalize": bool(settings.get("do_normalize", True)),
        "masked": architecture["feat_extract_norm"] == "layer",
        "longest": LONGEST,
    }


def labels_of(word: str, folder: Path, architecture: dict[str, Any], rows: int) -> tuple[list[int], tuple[str, ...]]:
    """Return the order of the rows of a trained CTC head, with the blank last, and the labels of the other rows.

    Both are empty if the folder has no vocabulary.
    """
    blank = architecture.get("pad_token_id")
    numbers = read_json(word, folder / VOCABULARY) if (folder / VOCABULARY).exists() else {}
    tokens = {number: token for token, number in numbers.items() if type(number) is int}
    if blank not in range(rows) or not tokens or not set(tokens) <= set(range(rows)):
        return [], ()
    settings = read_json(word, folder / TOKENIZER) if (folder / TOKENIZER).exists() else {}
    tokens |= {number: SPACE for number, token in tokens.items() if token == settings.get("word_delimiter_token", "|")}
    order = [row for row in range(rows) if row != blank]
    return [*order, blank], tuple(tokens.get(row, "") for row in order)
