"""Config node of a text-to-text model of Hugging Face, such as T5 and BART."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.huggingface.configs.text import TOKENIZERS
from warmstart.huggingface.files import read_json

TARGET = "warmstart.huggingface.seq2seq.HuggingFaceSeq2Seq"
GENERATION = "generation_config.json"
AUTO, TASK = "AutoModelForSeq2SeqLM", "seq2seq_lm"


def describes(architecture: dict[str, Any]) -> bool:
    """Return whether the architecture is an encoder-decoder of texts."""
    from transformers.models.auto import modeling_auto

    kind = architecture.get("model_type")
    if kind not in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return False
    return bool(architecture.get("is_encoder_decoder", True))


def node_of(
    word: str, folder: Path, architecture: dict[str, Any], names: list[str], pooling: str | None
) -> dict[str, Any]:
    """Return the config node of the backbone.

    Raises:
        UserError: it has no tokenizer.
    """
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"init={word}: {folder} has no tokenizer: add the tokenizer.json of the model")
    path = folder / GENERATION
    return {
        "_target_": TARGET,
        "architecture": architecture,
        "generation": read_json(word, path) if path.exists() else {},
    }
