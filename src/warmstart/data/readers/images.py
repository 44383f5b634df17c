"""Decode images to arrays: files, and columns of paths or encoded bytes, as in the `datasets` library."""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.readers.files import listed, map_in_threads

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow runs external programs for some others
# Errors of Pillow's decoders.
UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, struct.error)
BITS, PHOTOMETRIC = 258, 262  # TIFF tags BitsPerSample and PhotometricInterpretation
LISTED = 20
SMALLEST, LARGEST = 2, 2**26  # minimum side, and maximum number of pixels
DARK = 255 // 8  # maximum value of an image that is reported as dark
FRAMES, DEEP_DARK, ALL_DARK = "frames", "deep", "dark"  # kinds of warnings about images
Remarks = dict[str, dict[int, int]]  # kind -> image index -> maximum value
TOO_LARGE = f"larger than {LARGEST:,} pixels: make it smaller"


class Picture(NamedTuple):
    """An encoded image and its name in messages."""

    name: str
    content: Path | bytes


def to_pictures(files: Sequence[Path]) -> list[Picture]:
    """Return pictures with file paths as names."""
    return [Picture(str(path), path) for path in files]


def read_images(
    pictures: Sequence[Picture],
    shape: tuple[int, int, int],
    values: np.ndarray | None = None,
    errors: dict[int, str] | None = None,
    remarks: Remarks | None = None,
) -> np.ndarray:
    """Decode images in parallel and resize them; return one uint8 array (N, C, H, W), with C 1 or 3.

    Args:
        values: array to fill; None for a new one.
        errors: dict to which errors are added by image index, instead of raising them.
        remarks: dict to which warnings for `report` are added, instead of printing them.

    Raises:
        UserError: an image cannot be read, or has too few or too many pixels.
    """
    values = np.empty((len(pictures), *shape), dtype=np.uint8) if values is None else values
    found: Remarks = {} if remarks is None else remarks

    def read(number: int) -> None:
        try:
            values[number], kinds = decode(pictures[number], shape)
            for kind in kinds:
                found.setdefault(kind, {})[number] = int(values[number].max())
        except UserError as error:
            if errors is None:
                raise
            errors[number] = str(error)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # about metadata, and about sizes that are checked here
        map_in_threads(read, range(len(pictures)))
    if remarks is None:
        report(found, pictures, len(pictures) - len(errors or ()))
    return values


def report(remarks: Remarks, pictures: Sequence[Picture], read: int) -> None:
    """Print warnings about images with several frames, and about images with dark pixels only."""

    def named(numbers: dict[int, int]) -> str:
        return listed([pictures[number].name for number in sorted(numbers)])

    if frames := remarks.get(FRAMES):
        what = f"{len(frames):,} of {read:,} images have several frames, only the first is read"
        screen.say(f"warning: {what}: {named(frames)}", style="yellow")
    deep, dark = remarks.get(DEEP_DARK, {}), remarks.get(ALL_DARK, {})
    remedy = "if they should be brighter, scale their values to the full range (12 in 16 bits: times 16)"
    if deep:
        what = f"{len(deep):,} of {read:,} images have 16 bits but values in less than 1/8 of that range"
        screen.say(f"warning: {what}, so that they are nearly black: {named(deep)}; {remedy}", style="yellow")
    if len(dark) == read and any(dark.values()):
        what = f"no pixel of {read:,} images is above {max(dark.values())} of 255, so that they are nearly black"
        screen.say(f"warning: {what}: {named(dark)}; {remedy}", style="yellow")


def report_errors(errors: dict[int, str], count: int) -> None:
    """Print how many of `count` images are skipped, and the first errors."""
    listed = "".join(f"\n  {error}" for _, error in sorted(errors.items())[:LISTED])
    more = f"\n  and {len(errors) - LISTED:,} more" if len(errors) > LISTED else ""
    screen.say(f"{len(errors):,} of {count:,} images are skipped:{listed}{more}", style="yellow")


def decode(picture: Picture, shape: tuple[int, int, int]) -> tuple[np.ndarray, list[str]]:
    """Return an image as uint8 (C, H, W) and the kinds of its warnings; raise errors as `read_images`."""
    name, content = picture
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
            if min(image.size) < SMALLEST:
                raise UserError(f"{name} has {image.width} x {image.height} pixels: each side needs {SMALLEST} or more")
            if image.width * image.height > LARGEST:
                raise UserError(f"{name} has {image.width:,} x {image.height:,} pixels, {TOO_LARGE}")
            values, is_dark = to_array(image, shape)
            kinds = [DEEP_DARK] if is_dark else [ALL_DARK] if values.max() <= DARK else []
            with contextlib.suppress(*UNREADABLE):  # the second frame may be broken
                kinds += [FRAMES] if image.format != "MPO" and getattr(image, "is_animated", False) else []
            return values, kinds
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


def to_array(image: Image.Image, shape: tuple[int, int, int]) -> tuple[np.ndarray, bool]:
    """Return an image as uint8 (C, H, W), with the EXIF orientation applied and a white background.

    The second value is whether it has 16 bits and all values are in the lowest eighth of the range.
    """
    channels, height, width = shape
    image.draft(image.mode, (2 * width, 2 * height))  # decodes a large JPEG at a lower resolution
    deep = any("16" in str(tile.args) for tile in image.tile)
    tags = getattr(image, "tag_v2", {})
    bits, white_is_zero = tags.get(BITS, (16,))[0], tags.get(PHOTOMETRIC) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are signed, 32-bit or floating-point numbers; save it with 8 or 16 bits, unsigned")
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float32) / (2**bits - 1)
        clear = values == image.info.get("transparency", -1) / (2**bits - 1)
        values = 1 - values if white_is_zero else values
        is_dark = 0 < values.max() * 255 < DARK + 1
        image = Image.fromarray(np.where(clear, 255, np.rint(values.clip(0, 1) * 255)).astype(np.uint8))
    else:
        is_dark = None
        if deep and isinstance(image.info.get("transparency"), tuple):
            # Scaled as the pixels.
            image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    return values, bool(deep and values.max() <= DARK) if is_dark is None else is_dark


def pictures_of(column: pd.Series, where: str, folder: Path, must_exist: bool) -> list[Picture]:
    """Return the images of a column, in order.

    A cell is a relative or absolute path below `folder`, bytes, or a struct with `bytes` or else `path`.

    Args:
        folder: folder that all paths must be in.
        must_exist: whether to raise an error for empty cells and missing files.

    Raises:
        UserError: a cell is invalid, a path is outside of the folder, or files are missing.
    """
    inside = folder.resolve()
    pictures = [_picture(cell, f"{where}, row {row}", column.name, inside, must_exist) for row, cell in column.items()]
    if must_exist:
        files = [picture.content for picture in pictures if isinstance(picture.content, Path)]
        missing = [path for path in files if not path.is_file()]
        if missing:
            named = listed([os.path.relpath(path, inside) for path in missing])
            raise UserError(
                f"{where}, column {column.name}: {len(missing):,} of {len(column):,} files are not below {folder}: "
                f"{named}"
            )
    return pictures


def _picture(cell: Any, where: str, name: str, inside: Path, must_exist: bool) -> Picture:
    if isinstance(cell, dict):
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(cell, bytes):
        return Picture(f"{where}, column {name}", cell)
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        if not must_exist:
            return Picture(f"{where}, column {name}", b"")
        raise UserError(f"{where}, column {name}: the cell is empty: give a path, or bytes")
    if not isinstance(cell, str) or not cell.strip():
        raise UserError(f"{where}, column {name}: {str(cell)[:40]!r} is not an image: give a path, or bytes")
    path = Path(cell)
    if ".." in path.parts or "\0" in cell or not Path(os.path.realpath(inside / path)).is_relative_to(inside):
        raise UserError(f"{where}, column {name}: {cell[:80]} is outside of {inside}: give a path inside")
    return Picture(f"{inside / path} ({where})", inside / path)
