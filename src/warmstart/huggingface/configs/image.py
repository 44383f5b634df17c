"""Config node and preprocessor of an image model of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.huggingface.configs.text import has_causal, has_masked
from warmstart.huggingface.files import read_json

TARGET = "warmstart.huggingface.image.HuggingFaceImages"
PREPROCESSOR = "preprocessor_config.json"
FIRST = "cls_token"  # name of the parameter of the first position
HEADS = ("id2label", "label2id")  # settings of a head that is not loaded
WHITE = 255


def describes(architecture: dict[str, Any]) -> bool:
    """Return whether the architecture is for image classification, and not for texts."""
    from transformers.models.auto import modeling_auto

    kind = architecture.get("model_type")
    is_image = kind in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    return is_image and not has_causal(kind) and not has_masked(kind)


def node_of(
    word: str, folder: Path, architecture: dict[str, Any], names: list[str], pooling: str | None
) -> dict[str, Any]:
    """Return the config node of the backbone; default pooling is the first position, else the pooler of the model.

    Raises:
        UserError: it is not only for images, or its preprocessor is missing or unsupported.
    """
    if "vision_config" in architecture:
        raise UserError(
            f"init={word}: a {architecture['model_type']} is for images and texts: use a model of images only"
        )
    preprocessor_of(word, folder, architecture)
    pooling = pooling or ("cls" if any(name.endswith(FIRST) for name in names) else "pooler")
    kept = {key: value for key, value in architecture.items() if key not in HEADS}
    return {"_target_": TARGET, "pooling": pooling, "architecture": kept}


def preprocessor_of(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a preprocessor with the statistics and image size of the model.

    8-bit pixels are scaled in one step: (pixel * rescale_factor - image_mean) / image_std.

    Raises:
        UserError: the file or a setting is missing, or a setting is unsupported.
    """
    path = folder / PREPROCESSOR
    if not path.exists():
        raise UserError(f"init={word}: {folder} has no {PREPROCESSOR}, which has the scaling of pixels: add it")
    settings = read_json(word, path)
    channels = architecture.get("num_channels", 3)
    factor = settings.get("rescale_factor", 1 / WHITE) if settings.get("do_rescale") is not False else 1.0
    mean, std = [0.0] * channels, [1.0] * channels
    if settings.get("do_normalize") is not False:
        mean, std = (_values(word, path, settings, key, channels) for key in ("image_mean", "image_std"))
    for key in ("do_flip_channel_order", "rescale_offset", "do_color_quantize"):
        if settings.get(key):
            raise UserError(f"init={word}: {path} sets {key}, which is not supported: choose another model")
    return {
        "kind": "image",
        "white": float(WHITE),
        "shape": [channels, *_size(word, path, settings, architecture)],
        "mean": [value / factor for value in mean],
        "std": [value / factor for value in std],
        "any_size": True,
    }


def _values(word: str, path: Path, settings: dict[str, Any], key: str, channels: int) -> list[float]:
    """Return one number per channel; a single number applies to all channels."""
    found = settings.get(key)
    values = [found] * channels if isinstance(found, int | float) else found
    if not isinstance(values, list) or len(values) != channels or not all(isinstance(v, int | float) for v in values):
        raise UserError(
            f"init={word}: {path} has {key}={found}, but the model has {channels} channels: give one number per channel"
        )
    if key == "image_std" and min(values) <= 0:
        raise UserError(f"init={word}: {path} has {key}={found}: give numbers above 0")
    return [float(value) for value in values]


def _size(word: str, path: Path, settings: dict[str, Any], architecture: dict[str, Any]) -> tuple[int, int]:
    """Return height and width in pixels after cropping or resizing; default is the image size of the model."""
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    found = crop or settings.get("size") or architecture.get("image_size")
    if isinstance(found, dict):
        found = found.get("shortest_edge") or (found.get("height"), found.get("width"))
    size = (found, found) if isinstance(found, int) else tuple(found or ())
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"init={word}: {path} has no image size in pixels: add size={{height, width}}")
    return size
