"""The folder of a Hugging Face model: where it is, and what its files say."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.reading import is_plain, load_json

CARD, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
WANTED = ("*.json", WEIGHTS, "model-*-of-*.safetensors", "*.txt", "*.model", "*.jinja")  # of a model on the hub
FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}  # how transformers writes these numbers


def folder_of(word: str) -> Path:
    """The folder that the word names, or that of the hub's model in the local cache, downloaded if need be."""
    name = Init.parse(word).place
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise UserError(f"init={word}: there is no such folder; give a model's folder or its name on the hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"init={word}: there is no such folder, and no such model can be had from the Hugging Face hub "
            f"({type(error).__name__}): check the name and the connection, or give a folder"
        ) from error


def read_json(word: str, path: Path) -> dict[str, Any]:
    """The settings that a file holds.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        content = load_json(path, _decoded)
    except FileNotFoundError as error:
        raise UserError(f"init={word}: {path.parent} has no {path.name}: it is not a Hugging Face model") from error
    except (ValueError, OSError) as error:
        raise UserError(f"init={word}: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"init={word}: {path} is damaged: it holds no settings")
    return content


def _decoded(found: dict[str, Any]) -> Any:
    """A JSON object, or the number that transformers writes as one."""
    name = found.get("__float__") if len(found) == 1 else None
    return FLOATS.get(name, found) if isinstance(name, str) else found


def tensor_names(word: str, folder: Path) -> list[str]:
    """Of the weights.

    Raises:
        UserError: they are damaged, incomplete, or in files that can run code.
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
            f"init={word}: {folder} has no {WEIGHTS}, and weights in pickle files are not read, as they can run code: "
            "save the model again with save_pretrained"
        )
    lacking = [name for name in shard_names(word, folder) if not (folder / name).exists()]
    if lacking:
        raise UserError(f"init={word}: {folder} lacks {lacking[0]}, which its {SHARDS} names")
    return list(read_json(word, folder / SHARDS)["weight_map"])


def shard_names(word: str, folder: Path) -> list[str]:
    """The files that the weights are spread over.

    Raises:
        UserError: the index is damaged, or names what is no safetensors file of the folder.
    """
    places = read_json(word, folder / SHARDS).get("weight_map")
    if not isinstance(places, dict):
        raise UserError(f"init={word}: {folder / SHARDS} is damaged: it has no weight_map")
    for name in places.values():
        if not is_plain(name) or not name.endswith(".safetensors"):
            raise UserError(
                f"init={word}: {folder / SHARDS} names {name!r}, which is no safetensors file of its folder"
            )
    return sorted(set(places.values()))
