"""A model of images of Hugging Face as a start: the backbone's config node and the preprocessor, by its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.huggingface.files import read_json

TARGET = "warmstart.huggingface.image.HuggingFaceImages"
PREPROCESSOR = "preprocessor_config.json"
FIRST = "cls_token"  # how a model's first position is named, among its parameters
HEADS = ("id2label", "label2id")  # settings about a head that is not taken over
WHITE = 255


def describes(architecture: dict[str, Any]) -> bool:
    """Whether it is a model that transformers has for classes of images, and not for texts."""
    from transformers.models.auto import modeling_auto

    kind = architecture.get("model_type")
    texts = {
        *modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    }
    return kind in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES and kind not in texts


def node_of(
    word: str, folder: Path, architecture: dict[str, Any], names: list[str], pooling: str | None
) -> dict[str, Any]:
    """The backbone's config node; pooled is the first position, or what the model itself pools where it has none.

    Args:
        word: hf:NAME_OR_DIR.
        folder: the model's.
        architecture: its config.json.
        names: of its tensors.
        pooling: what the config says, if anything.

    Raises:
        UserError: it is not for images alone, or its preprocessor is missing or does what is not done here.
    """
    if "vision_config" in architecture:
        raise UserError(f"init={word}: a {architecture['model_type']} is for images and texts: give a model of images")
    preprocessor_of(word, folder, architecture)
    pooling = pooling or ("cls" if any(name.endswith(FIRST) for name in names) else "pooler")
    kept = {key: value for key, value in architecture.items() if key not in HEADS}
    return {"_target_": TARGET, "pooling": pooling, "architecture": kept}


def preprocessor_of(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Any]:
    """The state of a preprocessor with the statistics and the size that the model was trained with.

    Pixels are 8 bits here and are scaled once: (pixel * rescale_factor - image_mean) / image_std.

    Raises:
        UserError: there is no such file, a setting is missing, or one that is not followed is on.
    """
    path = folder / PREPROCESSOR
    if not path.exists():
        raise UserError(f"init={word}: {folder} has no {PREPROCESSOR}, which says how pixels are scaled: put it there")
    settings = read_json(word, path)
    channels = architecture.get("num_channels", 3)
    factor = settings.get("rescale_factor", 1 / WHITE) if settings.get("do_rescale") is not False else 1.0
    mean, std = [0.0] * channels, [1.0] * channels
    if settings.get("do_normalize") is not False:
        mean, std = (_values(word, path, settings, key, channels) for key in ("image_mean", "image_std"))
    for key in ("do_flip_channel_order", "rescale_offset", "do_color_quantize"):
        if settings.get(key):
            raise UserError(f"init={word}: {path} says {key}, which is not done here: choose another model")
    return {
        "kind": "image",
        "white": float(WHITE),
        "shape": [channels, *_size(word, path, settings, architecture)],
        "mean": [value / factor for value in mean],
        "std": [value / factor for value in std],
        "any_size": True,
    }


def _values(word: str, path: Path, settings: dict[str, Any], key: str, channels: int) -> list[float]:
    """One number per channel, written as a list or as one number for all."""
    found = settings.get(key)
    values = [found] * channels if isinstance(found, int | float) else found
    if not isinstance(values, list) or len(values) != channels or not all(isinstance(v, int | float) for v in values):
        raise UserError(f"init={word}: {path} has {key}={found}, and the model {channels} channels: give a number each")
    if key == "image_std" and min(values) <= 0:
        raise UserError(f"init={word}: {path} has {key}={found}: give numbers above 0")
    return [float(value) for value in values]


def _size(word: str, path: Path, settings: dict[str, Any], architecture: dict[str, Any]) -> tuple[int, int]:
    """Height and width after cutting or resizing, in pixels; those of the model where the file does not say."""
    cut = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    found = cut or settings.get("size") or architecture.get("image_size")
    if isinstance(found, dict):
        found = found.get("shortest_edge") or (found.get("height"), found.get("width"))
    size = (found, found) if isinstance(found, int) else tuple(found or ())
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"init={word}: {path} has no size of images, in pixels: give size={{height, width}}")
    return size
