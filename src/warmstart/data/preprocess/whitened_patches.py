"""Random patches of images, whitened, as filters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

IMAGES, SAMPLES = 1000, 50_000  # images of which patches are sampled, and patches that determine the whitening
CONTRAST, WHITENING = 10.0, 0.1  # added to variances, for pixels from 0 to 255
STRIDE = 2  # distance between neighboring patches of an image in pixels


def rows_of(count: int, generator: np.random.Generator) -> np.ndarray:
    """Return the rows of at most `IMAGES` images, of `count`."""
    return np.sort(generator.permutation(count)[:IMAGES])


def whitened_patches(images: Tensor, count: int, size: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return random patches as filters (count, C, size, size), and their offsets (count,).

    The similarity of a patch to a whitened one is the product with its filter, divided by the standard deviation of the
    patch, minus the offset: the filters include whitening and subtract the mean of a patch.

    Source: Coates and Ng (2011), "The Importance of Encoding Versus Training with Sparse Coding and Vector
    Quantization", https://icml.cc/2011/papers/485_icmlpaper.pdf.

    Args:
        images: of which patches are sampled (N, C, H, W), with pixels from 0 to 255.
        count: number of filters.
        size: height and width of a filter in pixels.
        generator: draws the patches.
    """
    patches = F.unfold(images, size, stride=STRIDE).transpose(1, 2).flatten(0, 1)
    patches = patches[torch.from_numpy(generator.permutation(len(patches))[:SAMPLES])]
    patches -= patches.mean(1, keepdim=True)
    patches /= (patches.var(1, keepdim=True, correction=0) + CONTRAST).sqrt()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    whiten = vectors * (values + WHITENING).rsqrt() @ vectors.T
    filters = F.normalize((patches[:count] - mean) @ whiten, dim=1) @ whiten
    offsets = filters @ mean
    filters -= filters.mean(1, keepdim=True)
    return filters.view(len(filters), images.shape[1], size, size), offsets
