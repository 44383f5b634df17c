"""Images: pixels are scaled to mean 0 and standard deviation 1 per channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warmstart.contracts import UserError
from warmstart.data.numbers import read_numbers
from warmstart.data.pictures import image_files, read_images, to_pictures

PIECE = 1000  # images at a time, since they may be too many for the memory


class Preprocessor:
    """Raw inputs are arrays (N, C, H, W), uint8 or float, whose brightest possible pixel is `white`."""

    def __init__(
        self,
        white: float = 255.0,
        shape: list[int] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ):
        self.white = white
        if shape is not None:
            self.shape = tuple(shape)
            self.mean, self.std = torch.tensor(mean), torch.tensor(std)

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
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(f"the saved preprocessor takes images of {self.shape}; this data has {x.shape[1:]}")
        return torch.from_numpy(np.ascontiguousarray(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled pixels, float (B, C, H, W)."""
        shape = (-1, 1, 1)
        return (x - self.mean.to(x.device).view(shape)).mul_(1 / self.std.to(x.device).view(shape))

    def drawn(self, x: Tensor) -> Tensor:
        """A scaled batch as pictures (B, C, H, W)."""
        return x

    def read(self, path: str) -> np.ndarray:
        """An image file, a folder of them, or a table of pixel values with one row per image."""
        files = self.files(path)
        if files is None:
            return read_numbers(path, int(np.prod(self.shape))).reshape(-1, *self.shape)
        if not files:
            raise UserError(f"{path} holds no image files")
        images = read_images(to_pictures(files), self.shape)
        return images if self.white == 255 else (images * (self.white / 255)).astype(np.float32)

    def files(self, path: str) -> list[Path] | None:
        """The files that `read` makes an example each of; None where it is a table."""
        if Path(path).is_dir():
            return image_files(Path(path))
        return None if Path(path).suffix.lower() in (".csv", ".parquet", ".pq") else [Path(path)]

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "kind": "image",
            "white": self.white,
            "shape": list(self.shape),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }
