"""Image files to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from warmstart.contracts import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if all(shown(Path(part)) for part in path.relative_to(folder).parts))


def shown(path: Path) -> bool:
    """Not one of the hidden files that cameras and desktops leave behind."""
    return not path.name.startswith(".")


def read_images(paths: Sequence[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Files decoded in parallel, resized and put into one uint8 array (N, C, H, W), C being 1 or 3.

    Raises:
        UserError: a file is not a readable image; it is named.
    """

    def read(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                return to_array(image, shape)
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is not a readable image: {str(error).splitlines()[0]}") from error

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(read, paths)))


def to_array(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """One image as uint8 (C, H, W)."""
    channels, height, width = shape
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
