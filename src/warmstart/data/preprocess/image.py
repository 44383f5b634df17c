"""Images: pixels are scaled to mean 0 and standard deviation 1 per channel."""

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
from warmstart.data.readers import image_cells
from warmstart.data.readers.columns import pick
from warmstart.data.readers.files import check_is_file
from warmstart.data.readers.folders import files_below
from warmstart.data.readers.images import SUFFIXES, Picture, read_images, report_errors, to_pictures
from warmstart.data.readers.numbers import read_numbers
from warmstart.data.readers.table import Dialect, header_of, is_table, read_table

COLUMNS = ("image", "img", "file", "file_name", "path")  # of a table of images to predict, in this order
PIECE = 1000  # images at a time, since they may be too many for the memory


class Preprocessor(protocols.Preprocessor):
    """Raw inputs are arrays (N, C, H, W), uint8 or float, whose brightest possible pixel is `white`.

    Args:
        white: the brightest possible pixel.
        shape: of an image, (C, H, W).
        mean: per channel, of pixels.
        std: per channel, of pixels.
        any_size: images of another size than `shape` are taken too, and `shape` becomes theirs.
        column: of images, in the user's tables; None for the first of image, img, file, file_name and path.
        dialect: how these tables are written.
    """

    abilities: ClassVar = frozenset({"drawn", "skip"})

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
        """The columns that a table of images must have; None where there is no table."""
        return None if self.column is None else [self.column]

    def fit(self, x: np.ndarray) -> None:
        """Mean and standard deviation per channel, over all pixels."""
        self.shape = tuple(x.shape[1:])
        pieces = [slice(start, start + PIECE) for start in range(0, len(x), PIECE)]
        mean = sum(x[piece].sum((0, 2, 3), dtype=np.float64) for piece in pieces) / (x.size / x.shape[1])
        apart = [np.square(x[piece] - mean.reshape(-1, 1, 1)).sum((0, 2, 3)) for piece in pieces]
        std = np.sqrt(sum(apart) / (x.size / x.shape[1]))
        self.mean = torch.tensor(mean, dtype=torch.float32)
        self.std = torch.tensor(np.where(std > 0, std, 1), dtype=torch.float32)

    def encode(self, x: np.ndarray) -> Tensor:
        """The same pixels as a tensor; uint8 stays uint8 until it is on the device."""
        if self.any_size:
            self._take_size(tuple(x.shape[1:]))
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(f"the saved preprocessor takes images of {self.shape}; this data has {x.shape[1:]}")
        return torch.from_numpy(np.ascontiguousarray(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled pixels, float (B, C, H, W)."""
        shape = (-1, 1, 1)
        return (x - self.mean.to(x.device).view(shape)).mul_(1 / self.std.to(x.device).view(shape))

    def drawn(self, x: Tensor) -> Tensor:
        """A scaled batch as pictures (B, C, H, W), black at 0 and white at 1."""
        mean, std = (values.to(x.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return ((x * std + mean) / self.white).clamp(0, 1)

    def read(self, path: str, on_error: str = "raise") -> Inputs:
        """An image file, a folder of them, a table that names or holds some, or one of pixel values; and the files.

        Raises:
            UserError: there is none, or one is broken and `on_error` is raise.
        """
        pictures, rows = find_pictures(Path(path), self.column, self.dialect, on_error == "raise")
        if pictures is None:
            found = read_numbers(path, int(np.prod(self.shape)))
            return Inputs(found.x.reshape(-1, *self.shape), found.rows)
        if not pictures:
            raise UserError(f"{path} holds no image files")
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
        """Return the same statistics for a data set with its `own` preprocessor: its tables, and its brightness."""
        mean, std = ((values * (own.white / self.white)).tolist() for values in (self.mean, self.std))
        return Preprocessor(own.white, list(self.shape), mean, std, self.any_size, own.column, own.dialect.state())

    def converted(self, x: np.ndarray, own: Preprocessor) -> np.ndarray:
        """Pixels of a data set with its `own` preprocessor, as bright as those that this one takes."""
        return x if own.white == self.white else (x * (self.white / own.white)).astype(np.float32)

    def export(self, folder: Path) -> None:
        """Write the settings as transformers reads them: of 8-bit pixels, resized with bilinear interpolation."""
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
        """What makes inputs of raw images by the exported file alone, as a user of transformers does."""
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        settings = {"input_data_format": "channels_first", "return_tensors": "pt"}
        if self.white != 255:  # values between those of 8 bits, which cannot be resized; they have the right size
            settings["do_resize"] = False
        return lambda x: dict(processor(list(x if self.white == 255 else x * np.float32(255 / self.white)), **settings))

    def probes(self, target: str | None) -> np.ndarray:
        """Images of noise, to compare an exported model on."""
        return np.random.default_rng(0).integers(0, 1 + int(self.white), (3, *self.shape), dtype=np.uint8)

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "kind": "image",
            "white": self.white,
            "shape": list(self.shape),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            **({"any_size": True} if self.any_size else {}),
            **({"column": self.column, "dialect": self.dialect.state()} if self.column else {}),
        }

    def _take_size(self, shape: tuple[int, ...]) -> None:
        """Settle on the shape that the data has; whether the model can take it, the backbone says."""
        given, usual = (" x ".join(map(str, sides)) for sides in (shape[1:], self.shape[1:]))
        if given != usual:
            what = f"images are {given} pixels and the model was made for {usual} (see data.size)"
            screen.say(f"warning: {what}", style="yellow")
        self.shape, self.any_size = shape, False


def find_pictures(
    path: Path, column: str | None = None, dialect: Dialect | None = None, must_exist: bool = True
) -> tuple[list[Picture] | None, list[int]]:
    """Return the images of a file, a folder or a table, and their rows; None where the table must be of pixel values.

    Args:
        path: of the file or folder.
        column: of images; None for the first of `COLUMNS`.
        dialect: how the table is written.
        must_exist: whether files that are not there are refused here.

    Raises:
        UserError: the table is missing or broken, or an image that it names is.
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
    return image_cells.to_pictures(cells, str(path), path.parent, must_exist), rows.index.tolist()
