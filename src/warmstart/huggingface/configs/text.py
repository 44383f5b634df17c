"""Config node of a text model of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.huggingface.files import CARD, read_json

TARGET = "warmstart.huggingface.text.HuggingFace"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
POOLINGS = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "lasttoken": "last"}


def node_of(
    word: str, folder: Path, architecture: dict[str, Any], names: list[str], pooling: str | None
) -> dict[str, Any]:
    """Return the config node of the backbone.

    Args:
        word: hf:NAME_OR_DIR.
        folder: folder of the model.
        architecture: content of config.json.
        names: names of the tensors.
        pooling: pooling set in the config, or None.

    Raises:
        UserError: it has no tokenizer, or is not a text model.
    """
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"init={word}: {folder} has no tokenizer: add the tokenizer.json of the model")
    is_decoder = is_text_decoder(word, architecture)
    pooling = pooling or _pooling(word, folder) or ("last" if is_decoder else "cls")
    pooler = pooling == "cls" and any(".pooler." in f".{name}" for name in names)
    return {"_target_": TARGET, "pooling": pooling, "pooler": pooler, "architecture": architecture}


def is_text_decoder(word: str, architecture: dict[str, Any]) -> bool:
    """Return whether a text model is a decoder (causal) instead of an encoder (masked).

    Raises:
        UserError: it is neither.
    """
    from transformers.models.auto import modeling_auto

    kind = architecture.get("model_type")
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if not (causal or masked) or architecture.get("is_encoder_decoder"):
        raise UserError(
            f"init={word}: transformers has no text encoder or decoder, image model or speech model with "
            f"model_type={kind}"
        )
    return bool(architecture.get("is_decoder")) or not masked


def _pooling(word: str, folder: Path) -> str | None:
    """Return the pooling in the files of sentence-transformers, or None."""
    path = folder / "1_Pooling" / CARD
    settings = read_json(word, path) if path.exists() else {}
    modes = [key.removeprefix("pooling_mode_") for key, value in settings.items() if value is True]
    return next((POOLINGS[mode] for mode in [settings.get("pooling_mode"), *modes] if mode in POOLINGS), None)
