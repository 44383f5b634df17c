"""A model of raw speech of Hugging Face as a start: backbone node, preprocessor and labels, by its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.huggingface.files import CARD, read_json

TARGET = "warmstart.huggingface.speech.HuggingFaceSpeech"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
VOCABULARY, TOKENIZER = "vocab.json", "tokenizer_config.json"
EXTRACTOR = "Wav2Vec2FeatureExtractor"
SPACE = "▁"  # how labels show the space before a word
CONVOLUTIONS = ("conv_kernel", "conv_stride", "feat_extract_norm")
LONGEST = 20.0  # seconds, where the data do not say
# The library's own random masking, which draws from another source than the run's seed, and settings about its heads.
OFF = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
HEADS = ("id2label", "label2id")


def describes(architecture: dict[str, Any]) -> bool:
    """Whether it is a model that transformers has for connectionist temporal classification."""
    from transformers.models.auto import modeling_auto

    return architecture.get("model_type") in modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES


def node_of(
    word: str, folder: Path, architecture: dict[str, Any], names: list[str], pooling: str | None
) -> dict[str, Any]:
    """The backbone's config node; pooled is the mean of the frames.

    Args:
        word: hf:NAME_OR_DIR.
        folder: the model's.
        architecture: its config.json.
        names: of its tensors.
        pooling: what the config says, if anything.

    Raises:
        UserError: it takes no waveforms, changes the number of its frames, or its preprocessor is missing.
    """
    kind = architecture["model_type"]
    lacking = [key for key in CONVOLUTIONS if key not in architecture]
    if lacking or "squeeze_factor" in architecture or architecture.get("add_adapter"):
        why = f"its {CARD} has no {lacking[0]}" if lacking else "it joins frames after its convolutions"
        raise UserError(f"init={word}: a {kind} like this is not done here, {why}: give a wav2vec 2.0, HuBERT or WavLM")
    if pooling not in (None, "mean"):
        raise UserError(f"backbone.pooling={pooling}: a {kind} has no such position: leave it out, the mean is taken")
    preprocessor_of(word, folder, architecture)
    kept = {key: value for key, value in architecture.items() if key not in HEADS}
    return {"_target_": TARGET, "architecture": {**kept, **OFF}}


def preprocessor_of(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Any]:
    """The state of a preprocessor that makes what the model was trained on.

    Raises:
        UserError: there is no such file, it is of another kind, or says no rate.
    """
    path, settings = folder / PREPROCESSOR, {}
    if path.exists():
        settings = read_json(word, path)
    elif (folder / PROCESSOR).exists():
        path = folder / PROCESSOR
        settings = read_json(word, path).get("feature_extractor", {})
    else:
        raise UserError(f"init={word}: {folder} has no {PREPROCESSOR}, which says how sound is sampled: put it there")
    if settings.get("feature_extractor_type", EXTRACTOR) != EXTRACTOR:
        raise UserError(f"init={word}: {path} is of a {settings['feature_extractor_type']}, which takes no waveforms")
    rate = settings.get("sampling_rate")
    if type(rate) is not int or rate < 1:
        raise UserError(f"init={word}: {path} has sampling_rate={rate}: give the model's rate in Hz, such as 16000")
    return {
        "kind": "waveform",
        "rate": rate,
        "kernel": list(architecture["conv_kernel"]),
        "stride": list(architecture["conv_stride"]),
        "normalise": bool(settings.get("do_normalize", True)),
        "masked": architecture["feat_extract_norm"] == "layer",
        "longest": LONGEST,
    }


def labels_of(word: str, folder: Path, architecture: dict[str, Any], rows: int) -> tuple[list[int], tuple[str, ...]]:
    """In which order to take the rows of a trained head, the blank's last, and what the others stand for.

    Both are empty where the folder does not say what its rows are.

    Args:
        word: hf:NAME_OR_DIR.
        folder: the model's.
        architecture: its config.json.
        rows: of the head.
    """
    blank = architecture.get("pad_token_id")
    numbers = read_json(word, folder / VOCABULARY) if (folder / VOCABULARY).exists() else {}
    named = {number: token for token, number in numbers.items() if type(number) is int}
    if blank not in range(rows) or not named or not set(named) <= set(range(rows)):
        return [], ()
    settings = read_json(word, folder / TOKENIZER) if (folder / TOKENIZER).exists() else {}
    named |= {number: SPACE for number, token in named.items() if token == settings.get("word_delimiter_token", "|")}
    order = [row for row in range(rows) if row != blank]
    return [*order, blank], tuple(named.get(row, "") for row in order)
