"""A text model of Hugging Face as a start: the backbone's config node, by its files."""

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
    """The backbone's config node.

    Args:
        word: hf:NAME_OR_DIR.
        folder: the model's.
        architecture: its config.json.
        names: of its tensors.
        pooling: what the config says, if anything.

    Raises:
        UserError: it has no tokenizer, or is no text model.
    """
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"init={word}: {folder} has no tokenizer: put the model's tokenizer.json there")
    is_decoder = decodes(word, architecture)
    pooling = pooling or _pooling(word, folder) or ("last" if is_decoder else "cls")
    pooler = pooling == "cls" and any(".pooler." in f".{name}" for name in names)
    return {"_target_": TARGET, "pooling": pooling, "pooler": pooler, "architecture": architecture}


def decodes(word: str, architecture: dict[str, Any]) -> bool:
    """Whether the model predicts what comes next, rather than what is hidden.

    Raises:
        UserError: it is no text model that does one of these.
    """
    from transformers.models.auto import modeling_auto

    kind = architecture.get("model_type")
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if not (causal or masked) or architecture.get("is_encoder_decoder"):
        raise UserError(
            f"init={word}: transformers knows no encoder or decoder of texts, and no model of images or raw speech, "
            f"with model_type={kind}"
        )
    return bool(architecture.get("is_decoder")) or not masked


def _pooling(word: str, folder: Path) -> str | None:
    """How sentence-transformers pools this model, if it says so."""
    path = folder / "1_Pooling" / CARD
    settings = read_json(word, path) if path.exists() else {}
    modes = [key.removeprefix("pooling_mode_") for key, value in settings.items() if value is True]
    return next((POOLINGS[mode] for mode in [settings.get("pooling_mode"), *modes] if mode in POOLINGS), None)
