"""Encoded images to arrays."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from warmstart.contracts import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow runs programs for some others
UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, struct.error)  # of Pillow's decoders
SMALLEST, LARGEST = 2, 2**26  # pixels a side, and pixels
TOO_LARGE = f"larger than {LARGEST:,} pixels: make it smaller"


class Picture(NamedTuple):
    """An encoded image, and what messages call it."""

    name: str
    content: Path | bytes


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if all(shown(Path(part)) for part in path.relative_to(folder).parts))


def shown(path: Path) -> bool:
    """Not one of the hidden files that cameras and desktops leave behind."""
    return not path.name.startswith(".")


def to_pictures(files: Sequence[Path]) -> list[Picture]:
    """Files, called by their paths."""
    return [Picture(str(path), path) for path in files]


def read_images(
    pictures: Sequence[Picture],
    shape: tuple[int, int, int],
    values: np.ndarray | None = None,
    errors: dict[int, str] | None = None,
) -> np.ndarray:
    """Images decoded in parallel, resized and put into one uint8 array (N, C, H, W), C being 1 or 3.

    Args:
        pictures: the images.
        shape: C, H and W.
        values: the array to fill.
        errors: takes what is wrong with an image, by its number, where that is not to be raised.

    Raises:
        UserError: one is not a readable image, or has too few or too many pixels; it is named.
    """
    values = np.empty((len(pictures), *shape), dtype=np.uint8) if values is None else values

    def read(number: int) -> None:
        try:
            values[number] = decoded(pictures[number], shape)
        except UserError as error:
            if errors is None:
                raise
            errors[number] = str(error)

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")  # of odd metadata, and of sizes that are refused here
        for _ in pool.map(read, range(len(pictures))):
            pass
    return values


def decoded(picture: Picture, shape: tuple[int, int, int]) -> np.ndarray:
    """One image as uint8 (C, H, W); errors are those of `read_images`."""
    name, content = picture
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
            if min(image.size) < SMALLEST:
                raise UserError(f"{name} has {image.width} x {image.height} pixels: {SMALLEST} a side are needed")
            if image.width * image.height > LARGEST:
                raise UserError(f"{name} has {image.width:,} x {image.height:,} pixels, {TOO_LARGE}")
            return to_array(image, shape)
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is {TOO_LARGE}") from error
    except UNREADABLE as error:
        raise UserError(f"{name} is not a readable image: {_reason(content, error)}") from error


def _reason(content: Path | bytes, error: Exception) -> str:
    if isinstance(content, Path) and not content.is_file():
        return "there is no such file"
    if not (content if isinstance(content, bytes) else content.stat().st_size):
        return "it is empty"
    return (str(error).splitlines() or [type(error).__name__])[0]


def to_array(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """One image as uint8 (C, H, W), turned as its EXIF data says, what is transparent being white."""
    channels, height, width = shape
    image.draft(image.mode, (2 * width, 2 * height))  # a large JPEG is decoded at a fraction of its size
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
