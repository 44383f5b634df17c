"""Load a Hugging Face model or tokenizer with an auto class of transformers, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from warmstart.core.errors import UserError
from warmstart.huggingface.files import CARD


def load(word: str, folder: Path, name: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """Load a model with changed settings; return it and its loading info. For AutoTokenizer, return the tokenizer."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        if name != "AutoTokenizer":
            config = transformers.AutoConfig.from_pretrained(folder, **settings, **changes)
            config._attn_implementation = "eager"  # an argument does not override config.json
            settings |= {"config": config, "use_safetensors": True, "dtype": "float32"}
            settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        found = getattr(transformers, name).from_pretrained(folder, **settings)
    except Exception as error:  # architectures raise many classes of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"init={word}: {folder} cannot be loaded as {name}: {reason}") from error
    if name != "AutoTokenizer":
        _check_values(word, *found)
    return found


def _check_values(word: str, model: Any, found: dict[str, Any]) -> None:
    """Raise UserError if weights have other shapes than the architecture, or are not finite."""
    for tensor, there, here in sorted(found["mismatched_keys"]):
        raise UserError(f"init={word}: {tensor} is {tuple(there)} in its weights but {tuple(here)} in its {CARD}")
    for tensor, values in model.named_parameters():
        if not values.isfinite().all():
            raise UserError(f"init={word}: its weights are not finite: {tensor}")
