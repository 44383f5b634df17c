"""Find and read the files of a Hugging Face model."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.reading import is_plain, load_json

CARD, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
WANTED = ("*.json", WEIGHTS, "model-*-of-*.safetensors", "*.txt", "*.model", "*.jinja")  # files to download
FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}  # JSON form of these numbers in transformers


def folder_of(word: str) -> Path:
    """Return a local folder, or the folder of a hub model in the local cache, downloaded if necessary."""
    name = Init.parse(word).path
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise UserError(f"init={word}: there is no such folder; give the folder of a model or its name on the hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"init={word}: no such folder, and the model cannot be downloaded from the Hugging Face hub "
            f"({type(error).__name__}): check the name and the connection, or give a folder"
        ) from error


def read_json(word: str, path: Path) -> dict[str, Any]:
    """Read a JSON file with an object.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        content = load_json(path, _decode)
    except FileNotFoundError as error:
        raise UserError(f"init={word}: {path.parent} has no {path.name}: it is not a Hugging Face model") from error
    except (ValueError, OSError) as error:
        raise UserError(f"init={word}: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"init={word}: {path} is damaged: it has no settings")
    return content


def _decode(found: dict[str, Any]) -> Any:
    """Return a JSON object, or the float that transformers writes as an object."""
    name = found.get("__float__") if len(found) == 1 else None
    return FLOATS.get(name, found) if isinstance(name, str) else found


def tensor_names(word: str, folder: Path) -> list[str]:
    """Return the names of the tensors of the weights.

    Raises:
        UserError: the weights are damaged, incomplete, or in files that can run code.
    """
    from safetensors import SafetensorError, safe_open

    if (folder / WEIGHTS).exists():
        try:
            with safe_open(folder / WEIGHTS, "numpy") as tensors:
                return list(tensors.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"init={word}: {folder / WEIGHTS} is truncated or damaged: {error}") from error
    if not (folder / SHARDS).exists():
        raise UserError(
            f"init={word}: {folder} has no {WEIGHTS}, and pickle files are not read, because they can run code: "
            "save the model again with save_pretrained"
        )
    missing = [name for name in shard_names(word, folder) if not (folder / name).exists()]
    if missing:
        raise UserError(f"init={word}: {folder} has no {missing[0]}, which its {SHARDS} lists")
    return list(read_json(word, folder / SHARDS)["weight_map"])


def shard_names(word: str, folder: Path) -> list[str]:
    """Return the shards of the weights.

    Raises:
        UserError: the index is damaged, or lists files that are not safetensors files of the folder.
    """
    shards = read_json(word, folder / SHARDS).get("weight_map")
    if not isinstance(shards, dict):
        raise UserError(f"init={word}: {folder / SHARDS} is damaged: it has no weight_map")
    for name in shards.values():
        if not is_plain(name) or not name.endswith(".safetensors"):
            raise UserError(
                f"init={word}: {folder / SHARDS} lists {name!r}, which is not a safetensors file of its folder"
            )
    return sorted(set(shards.values()))


def stored_dtype(word: str, folder: Path) -> str:
    """Return the dtype of all floating-point weights in the files: bfloat16 or float16; float32 if they have others."""
    from safetensors import safe_open

    found = set()
    for name in [WEIGHTS] if (folder / WEIGHTS).exists() else shard_names(word, folder):
        with safe_open(folder / name, "numpy") as tensors:
            found |= {tensors.get_slice(key).get_dtype() for key in list(tensors.keys())}
    floating = {kind for kind in found if "F" in kind}
    return {"BF16": "bfloat16", "F16": "float16"}.get(floating.pop(), "float32") if len(floating) == 1 else "float32"
