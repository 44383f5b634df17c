"""The trained heads of a Hugging Face model, as an objective names their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from warmstart.run import hub_speech
from warmstart.run.hub_load import load
from warmstart.run.hub_texts import decodes


def language_head(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Tensor]:
    """The trained head that predicts tokens, as an objective names it; empty if the file has not all of it."""
    name = "AutoModelForCausalLM" if decodes(word, architecture) else "AutoModelForMaskedLM"
    model, found = load(word, folder, name)
    shared = set(model.all_tied_weights_keys)
    if set(found["missing_keys"]) - shared:
        return {}
    trunk = f"{model.base_model_prefix}."
    state = model.state_dict().items()
    return {f"head.model.{n}": value for n, value in state if not n.startswith(trunk) and n not in shared}


def ctc_head(word: str, folder: Path, architecture: dict[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The trained head that says labels, the blank last, and these; empty if the folder has none."""
    if not any(str(name).endswith("ForCTC") for name in architecture.get("architectures") or ()):
        return {}, ()
    model, found = load(word, folder, "AutoModelForCTC", **hub_speech.OFF)
    linear = {name: value for name, value in model.state_dict().items() if name.startswith("lm_head.")}
    rows, labels = hub_speech.labels_of(word, folder, architecture, len(linear["lm_head.weight"]))
    if not rows or set(found["missing_keys"]) & set(linear):
        return {}, ()
    return {f"head.{name.removeprefix('lm_head.')}": value[rows] for name, value in linear.items()}, labels
