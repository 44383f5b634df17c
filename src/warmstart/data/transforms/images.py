"""Random changes to batches of images (B, C, H, W), drawn for each image; every result is float, but for `moved`.

What moves or mixes pixels along a side is a matrix per image and side, so that a crop, a mirror image and a blur become
one product; what changes colours is a matrix per image over its channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SIGMA = (0.1, 2.0)
SHARP = 1e-3  # the standard deviation of a blur that changes nothing
TAIL = -30.0  # the logarithm of a blur's smallest weight; far below it, exponentials are denormal and slow
RATIO = 0.288  # the logarithm of 4/3
LONGEST = 1.204  # the logarithm of 1/0.3


def moved(x: Tensor, shift: int, flip: bool) -> Tensor:
    """Up to `shift` pixels up, down, left and right, black coming in; half of them mirrored, where asked."""
    batch, channels, height, width = x.shape
    rows = torch.arange(height, device=x.device).expand(batch, height)
    columns = torch.arange(width, device=x.device).expand(batch, width)
    if flip:
        mirrored = torch.rand(batch, 1, device=x.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if shift:
        x = F.pad(x, (shift,) * 4)
        offsets = torch.randint(0, 2 * shift + 1, (2, batch, 1), device=x.device)
        rows, columns = rows + offsets[0], columns + offsets[1]
    flat = rows[:, :, None] * x.shape[-1] + columns[:, None, :]
    index = flat.reshape(batch, 1, -1).expand(-1, channels, -1)
    return x.flatten(2).gather(2, index).view(batch, channels, height, width)


def crops(x: Tensor, least: float, flip: bool, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Matrices of crops resized to height h and width w: of the rows (B, h, H), of the columns (B, w, W), bilinear.

    They keep a random share of the area, `least` or more, at an aspect ratio of 3/4 to 4/3 (Szegedy et al. 2015).
    """
    batch = len(x)
    area = torch.empty(batch, 1, device=x.device).uniform_(least, 1)
    ratio = torch.empty(batch, 1, device=x.device).uniform_(-RATIO, RATIO).exp_()
    size = torch.stack([area / ratio, area * ratio]).sqrt_().clamp_(max=1)
    center = (torch.rand_like(size) - 0.5) * (1 - size)
    if flip:
        size[1] *= torch.randint(0, 2, (batch, 1), device=x.device) * 2 - 1

    def along(side: int, length: int, found: int) -> Tensor:
        places, middle = torch.arange(length, device=x.device), (length - 1) / 2
        sought = (torch.arange(found, device=x.device) - (found - 1) / 2) * (length / found)
        pixels = (size[side] * sought + (center[side] * length + middle)).clamp_(0, length - 1)
        return (1 - (pixels[:, :, None] - places).abs_()).clamp_(min=0)

    return along(0, x.shape[2], height), along(1, x.shape[3], width)


def blurs(x: Tensor, probability: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Matrices of Gaussian blurs of 0.1 to 2 pixels (Chen et al. 2020): of the rows, of the columns.

    Images that are not drawn get ones.
    """
    batch = len(x)
    drawn = torch.rand(batch, 1, device=x.device) < probability
    sigma = torch.where(drawn, torch.empty(batch, 1, device=x.device).uniform_(*SIGMA), SHARP)

    def along(length: int) -> Tensor:
        distance = torch.arange(1 - length, length, device=x.device)
        bell = torch.exp((distance.square() / (-2 * sigma.square())).clamp_(min=TAIL))
        rows = bell.unfold(1, length, 1).flip(1)
        return rows.div_(rows.sum(2, keepdim=True))

    rows = along(height)
    return rows, rows if height == width else along(width)


def resampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Each image between its two matrices, multiplied in the run's own precision."""
    across = (x.float().flatten(1, 2) @ columns.mT).unflatten(1, x.shape[1:3])
    return (rows[:, None] @ across).float()


def solarised(x: Tensor, probability: float, white: float) -> Tensor:
    """Pixels in the brighter half are inverted, in images drawn with this probability (Grill et al. 2020)."""
    drawn = torch.rand(len(x), 1, 1, 1, device=x.device) < probability
    x = x.float()
    inverted = torch.where(drawn, white, 2 * white) - x
    return torch.minimum(x, inverted, out=inverted)


def recoloured(x: Tensor, strength: float, grey: float) -> Tensor:
    """Contrast, each channel's scale and brightness change by up to `strength`; with probability `grey` colour goes.

    Raises:
        UserError: the images have no colour that could go.
    """
    batch, channels = x.shape[:2]
    if grey and channels != len(LUMA):
        raise UserError(f"data.augment.grey={grey} is for colour; these images have one channel: set it to 0")

    def draw(count: int) -> Tensor:
        return torch.empty(batch, count, 1, device=x.device).uniform_(-strength, strength)

    contrast, scale, brightness = 1 + draw(1), 1 + draw(channels), draw(1)
    offset = (1 - contrast) * scale * x.flatten(1).mean(1)[:, None, None] + brightness
    keep = torch.eye(channels, device=x.device)
    if grey:
        drawn = torch.rand(batch, 1, 1, device=x.device) < grey
        keep = torch.where(drawn, torch.tensor(LUMA, device=x.device), keep)
    with torch.autocast(x.device.type, enabled=False):  # which takes longer to round than these products take
        return torch.baddbmm(keep @ offset, keep * (contrast * scale).mT, x.flatten(2)).view(x.shape)


def erased(x: Tensor, most: float) -> Tensor:
    """A random rectangle of each image, up to `most` of its area, becomes 0, the mean (Zhong et al. 2020).

    Its aspect ratio is 0.3 to 1/0.3, as far as the image leaves it.
    """
    sides = torch.tensor(x.shape[2:], device=x.device)[:, None, None]
    area = torch.empty(len(x), 1, device=x.device).uniform_(0, most)
    ratio = torch.empty(len(x), 1, device=x.device).uniform_(-LONGEST, LONGEST).exp_()
    size = (torch.stack([area * ratio, area / ratio]).sqrt_().clamp_(max=1) * sides).round_()
    start = (torch.rand_like(size) * (sides - size + 1)).floor_()

    def along(side: int, length: int) -> Tensor:
        places = torch.arange(length, device=x.device)
        return ((places >= start[side]) & (places < start[side] + size[side])).float()

    rows, columns = along(0, x.shape[2]), along(1, x.shape[3])
    return x * (1 - rows[:, None, :, None] * columns[:, None, None, :])
