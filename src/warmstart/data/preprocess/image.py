"""Preprocessor of images, which standardizes pixels per channel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from warmstart.core import protocols, screen
from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.data.preprocess.whitened_patches import rows_of, whitened_patches
from warmstart.data.readers import images
from warmstart.data.readers.columns import pick
from warmstart.data.readers.files import check_is_file
from warmstart.data.readers.folders import files_below
from warmstart.data.readers.images import SUFFIXES, Picture, read_images, report_errors, to_pictures
from warmstart.data.readers.table import Dialect, header_of, is_table, read_numbers, read_table

COLUMNS = ("image", "img", "file", "file_name", "path")  # default column of images in a table, in order of preference
CHUNK = 1000  # images processed at a time, to limit memory


class Preprocessor(protocols.Preprocessor):
    """Raw inputs are arrays (N, C, H, W), uint8 or float, with pixels from 0 to `white`.

    Args:
        white: maximum pixel value.
        shape: shape of an image (C, H, W).
        mean: mean of the pixels per channel.
        std: standard deviation of the pixels per channel.
        any_size: whether to accept images of another size than `shape`, which is then set to theirs.
        column: column of images in tables; None for the first of image, img, file, file_name and path.
        dialect: format of the tables.
    """

    abilities: ClassVar = frozenset({"to_images", "skip", "patches"})

    def __init__(
        self,
        white: float = 255.0,
        shape: list[int] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        any_size: bool = False,
        column: str | None = None,
        dialect: dict[str, Any] | None = None,
    ):
        self.white, self.any_size = white, any_size
        self.column, self.dialect = column, Dialect(**(dialect or {}))
        if shape is not None:
            self.shape = tuple(shape)
            self.mean, self.std = torch.tensor(mean), torch.tensor(std)

    @property
    def names(self) -> list[str] | None:
        """Columns that a table of images must have; None without a table."""
        return None if self.column is None else [self.column]

    def fit(self, x: np.ndarray) -> None:
        """Compute mean and standard deviation per channel, over all pixels."""
        self.shape = tuple(x.shape[1:])
        chunks = [slice(start, start + CHUNK) for start in range(0, len(x), CHUNK)]
        mean = sum(x[chunk].sum((0, 2, 3), dtype=np.float64) for chunk in chunks) / (x.size / x.shape[1])
        squares = [np.square(x[chunk] - mean.reshape(-1, 1, 1)).sum((0, 2, 3)) for chunk in chunks]
        std = np.sqrt(sum(squares) / (x.size / x.shape[1]))
        self.mean = torch.tensor(mean, dtype=torch.float32)
        self.std = torch.tensor(np.where(std > 0, std, 1), dtype=torch.float32)

    def encode(self, x: np.ndarray) -> Tensor:
        """Convert pixels to a tensor of the same type; uint8 is scaled on the device."""
        if self.any_size:
            self._adopt_shape(tuple(x.shape[1:]))
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(f"the saved preprocessor takes images of {self.shape}; this data has {x.shape[1:]}")
        return torch.from_numpy(np.ascontiguousarray(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Standardize pixels; return float (B, C, H, W)."""
        shape = (-1, 1, 1)
        return (x - self.mean.to(x.device).view(shape)).mul_(1 / self.std.to(x.device).view(shape))

    def to_images(self, x: Tensor) -> Tensor:
        """Convert a standardized batch to images (B, C, H, W), from 0, black, to 1, white."""
        mean, std = (values.to(x.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return ((x * std + mean) / self.white).clamp(0, 1)

    def patch_filters(self, x: np.ndarray, count: int, size: int, seed: int) -> np.ndarray:
        """Return random whitened patches of raw images (N, C, H, W) as filters of scaled images (count, C, size, size).

        Raises:
            UserError: an image is smaller than a filter, or the images have fewer patches than `count`.
        """
        if min(x.shape[2:]) < size:
            raise UserError(f"filters of {size} x {size} pixels are larger than images of {x.shape[2]} x {x.shape[3]}")
        generator = np.random.default_rng(seed)
        images = self.encode(x[rows_of(len(x), generator)]).float() * (255 / self.white)
        filters, _ = whitened_patches(images, count, size, generator)
        if len(filters) < count:
            raise UserError(
                f"the images have {len(filters):,} patches, fewer than the {count:,} filters: give more images"
            )
        return (filters * self.std.view(-1, 1, 1)).numpy()

    def read(self, path: str, on_error: str = "raise") -> Inputs:
        """Read an image file, a folder of image files, or a table of images, image paths or pixel values.

        Raises:
            UserError: there are no images, or one is broken and `on_error` is raise.
        """
        pictures, rows = find_pictures(Path(path), self.column, self.dialect, on_error == "raise")
        if pictures is None:
            found = read_numbers(path, int(np.prod(self.shape)))
            return Inputs(found.x.reshape(-1, *self.shape), found.rows)
        if not pictures:
            raise UserError(f"{path} has no image files")
        errors: dict[int, str] | None = None if on_error == "raise" else {}
        images = read_images(pictures, self.shape, errors=errors)
        if errors:
            report_errors(errors, len(pictures))
            kept = [number for number in range(len(pictures)) if number not in errors]
            if not kept:
                raise UserError(errors[0])
            images, pictures, rows = images[kept], [pictures[n] for n in kept], [rows[n] for n in kept]
        files = [name if isinstance(content, bytes) else str(content) for name, content in pictures]
        images = images if self.white == 255 else (images * (self.white / 255)).astype(np.float32)
        return Inputs(images, rows, files)

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """Return the same statistics, scaled to the `white` and with the tables of another preprocessor, `own`."""
        mean, std = ((values * (own.white / self.white)).tolist() for values in (self.mean, self.std))
        return Preprocessor(own.white, list(self.shape), mean, std, self.any_size, own.column, own.dialect.state())

    def converted(self, x: np.ndarray, own: Preprocessor) -> np.ndarray:
        """Rescale pixels of a data set with its `own` preprocessor to the range of this one."""
        return x if own.white == self.white else (x * (self.white / own.white)).astype(np.float32)

    def export(self, folder: Path) -> None:
        """Write the config of an image processor of transformers, for 8-bit pixels and bilinear resizing."""
        settings = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.shape[1], "width": self.shape[2]},
            "resample": 2,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": (self.mean / self.white).tolist(),
            "image_std": (self.std / self.white).tolist(),
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    def exported_inputs(self, folder: Path) -> Callable[[np.ndarray], dict[str, Tensor]]:
        """Return a function that preprocesses raw images with the exported config and transformers only."""
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        settings = {"input_data_format": "channels_first", "return_tensors": "pt"}
        if self.white != 255:  # floats cannot be resized, and have the right size already
            settings["do_resize"] = False
        return lambda x: dict(processor(list(x if self.white == 255 else x * np.float32(255 / self.white)), **settings))

    def probes(self, target: str | None) -> np.ndarray:
        """Return random images to verify an exported model with."""
        return np.random.default_rng(0).integers(0, 1 + int(self.white), (3, *self.shape), dtype=np.uint8)

    def state(self) -> dict[str, Any]:
        return {
            "kind": "image",
            "white": self.white,
            "shape": list(self.shape),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            **({"any_size": True} if self.any_size else {}),
            **({"column": self.column, "dialect": self.dialect.state()} if self.column else {}),
        }

    def _adopt_shape(self, shape: tuple[int, ...]) -> None:
        """Set `shape` to that of the data, with a warning; the backbone checks whether it supports it."""
        given, expected = (" x ".join(map(str, sides)) for sides in (shape[1:], self.shape[1:]))
        if given != expected:
            what = f"images are {given} pixels, but the model was trained on {expected} (see data.size)"
            screen.say(f"warning: {what}", style="yellow")
        self.shape, self.any_size = shape, False


def find_pictures(
    path: Path, column: str | None = None, dialect: Dialect | None = None, must_exist: bool = True
) -> tuple[list[Picture] | None, list[int]]:
    """Return the images of a file, a folder or a table, and their row numbers; None for a table of pixel values.

    Args:
        column: column of images; None for the first of `COLUMNS`.
        must_exist: whether to raise an error for missing image files.

    Raises:
        UserError: the table or an image is missing or broken.
    """
    if path.is_dir() or not is_table(path):
        pictures = to_pictures(files_below(path, SUFFIXES) if path.is_dir() else [path])
        return pictures, list(range(1, len(pictures) + 1))
    check_is_file(path)
    if column is None and not set(header_of(path, dialect) or ()) & set(COLUMNS):
        return None, []
    rows = read_table(path, dialect)
    column = column or next(name for name in COLUMNS if name in rows)
    cells = pick(rows, column, str(path))
    return images.pictures_of(cells, str(path), path.parent, must_exist), rows.index.tolist()
