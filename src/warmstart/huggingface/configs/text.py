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

    Raises:
        UserError: it has no tokenizer, or is not a text model.
    """
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"init={word}: {folder} has no tokenizer: add the tokenizer.json of the model")
    kind = architecture.get("model_type")
    if not (has_causal(kind) or has_masked(kind)) or architecture.get("is_encoder_decoder"):
        raise UserError(
            f"init={word}: transformers has no text encoder or decoder, image model or speech model with "
            f"model_type={kind}"
        )
    pooling = pooling or _pooling(word, folder) or ("last" if is_causal(architecture) else "cls")
    pooler = pooling == "cls" and any(".pooler." in f".{name}" for name in names)
    return {"_target_": TARGET, "pooling": pooling, "pooler": pooler, "architecture": architecture}


def is_causal(architecture: dict[str, Any]) -> bool:
    """Return whether attention is causal: a decoder, not an encoder."""
    kind = architecture.get("model_type")
    return bool(architecture.get("is_decoder")) or (has_causal(kind) and not has_masked(kind))


def has_causal(kind: str | None) -> bool:
    """Return whether transformers has a causal language model of this type."""
    from transformers.models.auto import modeling_auto

    return kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def has_masked(kind: str | None) -> bool:
    """Return whether transformers has a masked language model of this type."""
    from transformers.models.auto import modeling_auto

    return kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _pooling(word: str, folder: Path) -> str | None:
    """Return the pooling in the files of sentence-transformers, or None."""
    path = folder / "1_Pooling" / CARD
    settings = read_json(word, path) if path.exists() else {}
    modes = [key.removeprefix("pooling_mode_") for key, value in settings.items() if value is True]
    return next((POOLINGS[mode] for mode in [settings.get("pooling_mode"), *modes] if mode in POOLINGS), None)
