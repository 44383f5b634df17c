"""Resolve `init=hf:NAME_OR_DIR` to the config node of a backbone, without executing code of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.init import HUB
from warmstart.core.trust import check_targets
from warmstart.huggingface.configs import image, seq2seq, speech, text, whisper
from warmstart.huggingface.files import CARD, read_json, tensor_names

TARGETS = {  # class -> option of the group backbone
    text.TARGET: "huggingface",
    image.TARGET: "huggingface_images",
    speech.TARGET: "huggingface_speech",
    seq2seq.TARGET: "huggingface_seq2seq",
    whisper.TARGET: "huggingface_whisper",
}
RUNTIME = ("dtype", "quantize")
RUNTIME_SETTINGS = {text.TARGET: (*RUNTIME, "checkpoint")}  # others have checkpoint only; see core.protocols
CODED = (CARD, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
# Implementations that are not downloaded from the hub.
OWN = (None, "eager", "sdpa", "flash_attention_2", "grouped_mm", "batched_mm")


def node_of(word: str, folder: Path, pooling: str | None) -> dict[str, Any]:
    """Return the config node of the backbone.

    Args:
        word: hf:NAME_OR_DIR, for messages.
        folder: of the model, with a config.json, the architecture.
        pooling: set in the config, or None for that of the model.

    Raises:
        UserError: the model is not supported, damaged, or needs code.
    """
    architecture = read_json(word, folder / CARD)
    if "warmstart" in architecture:
        raise UserError(f"init={word}: this is a backbone saved by warmstart: use init={folder}, without {HUB}")
    if _needs_kernel(architecture):
        raise UserError(
            f"init={word}: the model uses a kernel from the hub, which is code and not allowed: "
            f"remove attn_implementation and use_kernels from its {CARD}"
        )
    for path in (folder / name for name in CODED if (folder / name).exists()):
        if "auto_map" in read_json(word, path):
            what = f"custom code (auto_map in its {'config' if path.name == CARD else path.name})"
            raise UserError(f"init={word}: the model needs {what}, which is not allowed")
    if "quantization_config" in architecture or (folder / "adapter_config.json").exists():
        raise UserError(f"init={word}: use a complete model in full precision, not a quantized model or an adapter")
    kind = next((kind for kind in (image, speech, whisper, seq2seq) if kind.describes(architecture)), text)
    node = kind.node_of(word, folder, architecture, tensor_names(word, folder), pooling)
    try:
        check_targets({"backbone": node}, folder / CARD)
    except UserError as error:
        raise UserError(f"init={word}: {error}") from error
    return node


def with_runtime_settings(node: dict[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config node with the runtime settings that are chosen, in place of its own.

    Raises:
        UserError: a dtype is chosen for a model that has no such setting.
    """
    known = RUNTIME_SETTINGS.get(node["_target_"], ("checkpoint",))
    unused = [key for key in RUNTIME if key not in known and chosen.get(key) not in (None, "auto")]
    if unused:
        raise UserError(
            f"backbone.{unused[0]}={chosen[unused[0]]} is for text models of Hugging Face, unlike this one: remove it"
        )
    own = {key: value for key, value in node.items() if key not in known}
    return own | {key: chosen[key] for key in known if key in chosen}


def _needs_kernel(node: Any) -> bool:
    """Return whether a configuration, or a nested one, uses an implementation that is downloaded as code."""
    if not isinstance(node, dict):
        return False
    chosen = [node.get(f"{start}{kind}_implementation") for start in ("", "_") for kind in ("attn", "experts")]
    is_used = node.get("use_kernels") or any(name not in OWN for name in chosen)
    return bool(is_used) or any(_needs_kernel(value) for value in node.values())
