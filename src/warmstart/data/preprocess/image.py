"""Images: pixels are scaled to mean 0 and standard deviation 1 per channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warmstart.contracts import UserError
from warmstart.data.numbers import read_numbers
from warmstart.data.pictures import image_files, read_images


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
        channels = x.shape[1]
        pixels = [x[:, channel].astype(np.float32) for channel in range(channels)]
        self.shape = tuple(x.shape[1:])
        self.mean = torch.tensor([float(channel.mean()) for channel in pixels])
        self.std = torch.tensor([float(channel.std()) or 1.0 for channel in pixels])

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
        if Path(path).suffix.lower() in (".csv", ".parquet", ".pq"):
            return read_numbers(path, int(np.prod(self.shape))).reshape(-1, *self.shape)
        files = image_files(Path(path)) if Path(path).is_dir() else [Path(path)]
        if not files:
            raise UserError(f"{path} holds no image files")
        images = read_images(files, self.shape)
        return images if self.white == 255 else (images * (self.white / 255)).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "kind": "image",
            "white": self.white,
            "shape": list(self.shape),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }
