"""Images spoilt or turned, for shifted test splits; the same images and seed give the same result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

SIDE = 32  # pixels a side of the photos that the strengths below are for


def rotated(images: np.ndarray, least: float, most: float, seed: int) -> np.ndarray:
    """Each image (N, C, H, W) turned by an angle drawn evenly from `least` to `most` degrees, either way round.

    What comes in at the edges is 0.
    """
    generator = np.random.default_rng(seed)
    angles = generator.uniform(least, most, len(images)) * generator.choice((-1, 1), len(images))
    turned = [ndimage.rotate(x, angle, axes=(1, 2), reshape=False, order=1) for x, angle in zip(images, angles)]
    return np.stack(turned)


def noisy(images: np.ndarray, deviation: float, white: float, seed: int) -> np.ndarray:
    """Images of 0 to `white` with Gaussian noise, in their own type."""
    noise = np.random.default_rng(seed).normal(0, deviation, images.shape)
    return np.clip(images + noise, 0, white).astype(images.dtype)


def corrupted(images: np.ndarray, seed: int) -> np.ndarray:
    """Each image (N, C, H, W), uint8, under one of seven corruptions at one of five strengths, drawn evenly.

    Hendrycks & Dietterich 2019, Benchmarking neural network robustness to common corruptions and perturbations, with
    the strengths of CIFAR-10-C: three kinds of noise, blur, brightness, contrast, pixelation.
    """
    generator = np.random.default_rng(seed)
    kinds, levels = generator.integers(len(CORRUPTIONS), size=len(images)), generator.integers(5, size=len(images))
    result = np.empty_like(images)
    for number, (corrupt, strengths) in enumerate(CORRUPTIONS.items()):
        for level, strength in enumerate(strengths):
            chosen = (kinds == number) & (levels == level)
            values = corrupt(images[chosen] / 255, strength, generator)
            result[chosen] = np.round(255 * np.clip(values, 0, 1))
    return result


def gaussian_noise(x: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """As a dark picture has; x (n, C, H, W) is of 0 to 1 here and below."""
    return x + generator.normal(0, deviation, x.shape)


def shot_noise(x: np.ndarray, photons: float, generator: np.random.Generator) -> np.ndarray:
    """White being so many photons, on average."""
    return generator.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """This share of the values black or white."""
    drawn = generator.random(x.shape)
    return np.where(drawn < share, drawn < share / 2, x)


def blur(x: np.ndarray, pixels: float, generator: np.random.Generator) -> np.ndarray:
    """By a Gaussian this wide, in a photo of 32 pixels a side."""
    wide = pixels * x.shape[-1] / SIDE
    return ndimage.gaussian_filter(x, (0, 0, wide, wide), mode="nearest")


def brightness(x: np.ndarray, more: float, generator: np.random.Generator) -> np.ndarray:
    """The value of hue, saturation and value raised."""
    value = x.max(axis=1, keepdims=True)
    share = np.divide(x, value, out=np.ones_like(x), where=value > 0)
    return share * np.minimum(value + more, 1)


def contrast(x: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """This share of the distance to a channel's mean."""
    mean = x.mean(axis=(2, 3), keepdims=True)
    return mean + share * (x - mean)


def pixelate(x: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Down to this share of the side and up again, as Pillow's box filter does."""
    fewer = [max(1, int(side * share)) for side in x.shape[2:]]
    height, width = (boxes(side, few) @ boxes(few, side) for side, few in zip(x.shape[2:], fewer))
    return height @ x @ width.T


def boxes(to: int, side: int) -> np.ndarray:
    """What resizes `side` values to `to` (to, side): the mean of those with their middle in it, or the nearest."""
    scale = side / to
    away = (np.arange(side) + 0.5 - scale * (np.arange(to)[:, None] + 0.5)) / max(scale, 1)
    covered = (away > -0.5) & (away <= 0.5)
    return covered / covered.sum(axis=1, keepdims=True)


CORRUPTIONS: dict[Callable[..., np.ndarray], tuple[float, ...]] = {
    gaussian_noise: (0.04, 0.06, 0.08, 0.09, 0.1),
    shot_noise: (500, 250, 100, 75, 50),
    impulse_noise: (0.01, 0.02, 0.03, 0.05, 0.07),
    blur: (0.4, 0.6, 0.7, 0.8, 1),
    brightness: (0.05, 0.1, 0.15, 0.2, 0.3),
    contrast: (0.75, 0.5, 0.4, 0.3, 0.15),
    pixelate: (0.95, 0.9, 0.85, 0.75, 0.65),
}
