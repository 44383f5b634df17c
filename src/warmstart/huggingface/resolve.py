"""A Hugging Face model as a start, `init=hf:NAME_OR_DIR`: what the config must know. None of its code is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.init import HUB
from warmstart.core.trust import check_targets
from warmstart.huggingface.configs import image, speech, text
from warmstart.huggingface.files import CARD, read_json, tensor_names

TARGETS = {  # and what chooses them
    text.TARGET: "huggingface",
    image.TARGET: "huggingface_images",
    speech.TARGET: "huggingface_speech",
}
CODED = (CARD, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
OWN = (None, "eager", "sdpa", "flash_attention_2", "grouped_mm", "batched_mm")  # what is not fetched from the hub


def node_of(word: str, folder: Path, pooling: str | None) -> dict[str, Any]:
    """The backbone's config node; whatever cannot be used is refused here."""
    architecture = read_json(word, folder / CARD)
    if "warmstart" in architecture:
        raise UserError(f"init={word}: this is a saved backbone of ours: give init={folder}, without {HUB}")
    if _needs_kernel(architecture):
        raise UserError(
            f"init={word}: the model asks for a kernel from the hub, which is code and so not allowed: "
            f"take attn_implementation and use_kernels out of its {CARD}"
        )
    for path in (folder / name for name in CODED if (folder / name).exists()):
        if "auto_map" in read_json(word, path):
            what = f"code of its own (auto_map in its {'config' if path.name == CARD else path.name})"
            raise UserError(f"init={word}: the model runs {what}, which is not allowed")
    if "quantization_config" in architecture or (folder / "adapter_config.json").exists():
        raise UserError(f"init={word}: give the whole model in full precision, not a quantised one or an adapter")
    kind = next((kind for kind in (image, speech) if kind.describes(architecture)), text)
    node = kind.node_of(word, folder, architecture, tensor_names(word, folder), pooling)
    try:
        check_targets({"backbone": node}, folder / CARD)
    except UserError as error:
        raise UserError(f"init={word}: {error}") from error
    return node


def _needs_kernel(node: Any) -> bool:
    """Whether a configuration, or one inside it, names an implementation that is fetched as code."""
    if not isinstance(node, dict):
        return False
    chosen = [node.get(f"{start}{kind}_implementation") for start in ("", "_") for kind in ("attn", "experts")]
    is_asked = node.get("use_kernels") or any(name not in OWN for name in chosen)
    return bool(is_asked) or any(_needs_kernel(value) for value in node.values())
