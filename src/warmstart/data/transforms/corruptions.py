"""Corruptions and rotations of images for shifted test splits; deterministic given the images and the seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

SIDE = 32  # height and width, in pixels, of the photos for which the strengths below are defined


def rotated(images: np.ndarray, least: float, most: float, seed: int) -> np.ndarray:
    """Rotate each image (N, C, H, W) by `least` to `most` degrees in a random direction; borders are filled with 0."""
    generator = np.random.default_rng(seed)
    angles = generator.uniform(least, most, len(images)) * generator.choice((-1, 1), len(images))
    rotated_images = [ndimage.rotate(x, angle, axes=(1, 2), reshape=False, order=1) for x, angle in zip(images, angles)]
    return np.stack(rotated_images)


def noisy(images: np.ndarray, deviation: float, white: float, seed: int) -> np.ndarray:
    """Add Gaussian noise to images with values from 0 to `white`; the dtype is kept."""
    noise = np.random.default_rng(seed).normal(0, deviation, images.shape)
    return np.clip(images + noise, 0, white).astype(images.dtype)


def corrupted(images: np.ndarray, seed: int) -> np.ndarray:
    """Apply one of seven corruptions at one of five strengths, both drawn uniformly, to each uint8 image (N, C, H, W).

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
    """Add Gaussian noise; here and below, x (n, C, H, W) has values from 0 to 1."""
    return x + generator.normal(0, deviation, x.shape)


def shot_noise(x: np.ndarray, photons: float, generator: np.random.Generator) -> np.ndarray:
    """Add Poisson noise; a white pixel has `photons` photons on average."""
    return generator.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Set a fraction of the values to black or white."""
    drawn = generator.random(x.shape)
    return np.where(drawn < share, drawn < share / 2, x)


def blur(x: np.ndarray, pixels: float, generator: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian whose standard deviation is `pixels` in an image of 32 x 32 pixels."""
    sigma = pixels * x.shape[-1] / SIDE
    return ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest")


def brightness(x: np.ndarray, more: float, generator: np.random.Generator) -> np.ndarray:
    """Increase the value (V) in HSV color space."""
    value = x.max(axis=1, keepdims=True)
    share = np.divide(x, value, out=np.ones_like(x), where=value > 0)
    return share * np.minimum(value + more, 1)


def contrast(x: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Multiply the distance to the mean of the channel."""
    mean = x.mean(axis=(2, 3), keepdims=True)
    return mean + share * (x - mean)


def pixelate(x: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Downsample to a fraction of the size and upsample again, as Pillow's box filter."""
    smaller = [max(1, int(side * share)) for side in x.shape[2:]]
    height, width = (box_filter(side, small) @ box_filter(small, side) for side, small in zip(x.shape[2:], smaller))
    return height @ x @ width.T


def box_filter(to: int, side: int) -> np.ndarray:
    """Return the matrix (to, side) that resizes `side` values to `to`: means over boxes, or the nearest value."""
    scale = side / to
    distance = (np.arange(side) + 0.5 - scale * (np.arange(to)[:, None] + 0.5)) / max(scale, 1)
    covered = (distance > -0.5) & (distance <= 0.5)
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
