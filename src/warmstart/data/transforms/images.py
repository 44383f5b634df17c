"""Random transforms of batches of images (B, C, H, W), drawn per image.

Crops and blurs are one matrix per image and axis; color changes are one matrix per image over its channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.errors import UserError
from warmstart.core.protocols import Transform
from warmstart.core.ranges import LeftOpenUnitInterval, PositiveFloat, between

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SIGMA = (0.1, 2.0)
SHARP = 1e-3  # standard deviation of a blur without an effect
TAIL = -30.0  # log of the smallest weight of a blur; much smaller exponentials are denormal and slow
RATIO = 0.288  # log(4/3)
MAX_LOG_RATIO = 1.204  # log(1/0.3)
Pixels = between(1, 4096)


class ImageTransform(Transform):
    """Base class of transforms of images."""

    inputs = frozenset({"image"})


class Flip(ImageTransform):
    """Mirror images left to right, with this probability."""

    raw = True

    def __init__(self, probability: LeftOpenUnitInterval):
        self.probability = probability

    def __call__(self, x: Tensor) -> Tensor:
        drawn = torch.rand(len(x), 1, 1, 1, device=x.device) < self.probability
        return torch.where(drawn, x.flip(3), x)


class Shift(ImageTransform):
    """Translate images vertically and horizontally; the border is filled with black.

    Args:
        pixels: largest translation in each direction.
        flip: mirror half of the images left to right, without additional computation.
    """

    raw = True

    def __init__(self, pixels: Pixels, flip: bool = False):
        self.pixels, self.flip = pixels, flip

    def __call__(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        if self.flip:
            columns = torch.where(torch.rand(batch, 1, device=x.device) < 0.5, columns.flip(0), columns)
        offsets = [torch.randint(0, 2 * self.pixels + 1, (batch, 1), device=x.device) for _ in range(2)]
        x = F.pad(x, (self.pixels,) * 4)
        flat = (rows + offsets[0])[:, :, None] * x.shape[-1] + (columns + offsets[1])[:, None, :]
        index = flat.reshape(batch, 1, -1).expand(-1, channels, -1)
        return x.flatten(2).gather(2, index).view(batch, channels, height, width)


class Crop(ImageTransform):
    """Resize a random crop, bilinearly, with an aspect ratio of 3/4 to 4/3 (Szegedy et al. 2015).

    Args:
        scale: smallest fraction of the area of the image.
        size: height and width of the output in pixels; None keeps those of the image.
        flip: mirror half of the images left to right, without additional computation.
    """

    raw = True

    def __init__(self, scale: LeftOpenUnitInterval, size: Pixels | None = None, flip: bool = False):
        self.scale, self.size, self.flip = scale, size, flip

    def __call__(self, x: Tensor) -> Tensor:
        batch = len(x)
        area = torch.empty(batch, 1, device=x.device).uniform_(self.scale, 1)
        ratio = torch.empty(batch, 1, device=x.device).uniform_(-RATIO, RATIO).exp_()
        size = torch.stack([area / ratio, area * ratio]).sqrt_().clamp_(max=1)
        center = (torch.stack([torch.rand_like(side) for side in size]) - 0.5) * (1 - size)
        if self.flip:
            size[1] *= torch.randint(0, 2, (batch, 1), device=x.device) * 2 - 1

        def along(side: int) -> Tensor:
            length = x.shape[2 + side]
            output = self.size or length
            positions, middle = torch.arange(length, device=x.device), (length - 1) / 2
            target = (torch.arange(output, device=x.device) - (output - 1) / 2) * (length / output)
            pixels = (size[side] * target + (center[side] * length + middle)).clamp_(0, length - 1)
            return (1 - (pixels[:, :, None] - positions).abs_()).clamp_(min=0)

        return _resampled(x, along(0), along(1))


class Blur(ImageTransform):
    """Blur images with a Gaussian of 0.1 to 2 pixels (Chen et al. 2020), with this probability."""

    raw = True

    def __init__(self, probability: LeftOpenUnitInterval):
        self.probability = probability

    def __call__(self, x: Tensor) -> Tensor:
        drawn = torch.rand(len(x), 1, device=x.device) < self.probability
        sigma = torch.where(drawn, torch.empty(len(x), 1, device=x.device).uniform_(*SIGMA), SHARP)

        def along(length: int) -> Tensor:
            distance = torch.arange(1 - length, length, device=x.device)
            weights = torch.exp((distance.square() / (-2 * sigma.square())).clamp_(min=TAIL))
            rows = weights.unfold(1, length, 1).flip(1)
            return rows.div_(rows.sum(2, keepdim=True))

        rows = along(x.shape[2])
        return _resampled(x, rows, rows if x.shape[2] == x.shape[3] else along(x.shape[3]))


class Solarize(ImageTransform):
    """Invert the brighter half of the pixel values, with this probability (Grill et al. 2020)."""

    raw = True

    def __init__(self, probability: LeftOpenUnitInterval):
        self.probability = probability

    def __call__(self, x: Tensor) -> Tensor:
        drawn = torch.rand(len(x), 1, 1, 1, device=x.device) < self.probability
        x = x.float()
        inverted = torch.where(drawn, self.white, 2 * self.white) - x
        return torch.minimum(x, inverted, out=inverted)


class ColorJitter(ImageTransform):
    """Change contrast, the scale of each channel, and brightness by up to `strength`."""

    def __init__(self, strength: PositiveFloat):
        self.strength = strength

    def __call__(self, x: Tensor) -> Tensor:
        channels = x.shape[1]

        def draw(count: int) -> Tensor:
            return torch.empty(len(x), count, 1, device=x.device).uniform_(-self.strength, self.strength)

        contrast, scale, brightness = 1 + draw(1), 1 + draw(channels), draw(1)
        offset = (1 - contrast) * scale * x.flatten(1).mean(1)[:, None, None] + brightness
        return _recolored(x, torch.eye(channels, device=x.device) * (contrast * scale).mT, offset)


class Grayscale(ImageTransform):
    """Convert images to grayscale with this probability.

    Raises:
        UserError: the images have one channel.
    """

    def __init__(self, probability: LeftOpenUnitInterval):
        self.probability = probability

    def __call__(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        if channels != len(LUMA):
            raise UserError("data.augment.grayscale is for color images, but these have one channel: remove it")
        drawn = torch.rand(batch, 1, 1, device=x.device) < self.probability
        matrix = torch.where(drawn, torch.tensor(LUMA, device=x.device), torch.eye(channels, device=x.device))
        return _recolored(x, matrix, x.new_zeros(()))


class RandomErasing(ImageTransform):
    """Set a rectangle of each image, with up to `area` of its area, to 0, the mean (Zhong et al. 2020).

    The aspect ratio is 0.3 to 1/0.3 if the rectangle fits in the image.
    """

    def __init__(self, area: LeftOpenUnitInterval):
        self.area = area

    def __call__(self, x: Tensor) -> Tensor:
        sides = torch.tensor(x.shape[2:], device=x.device)[:, None, None]
        area = torch.empty(len(x), 1, device=x.device).uniform_(0, self.area)
        ratio = torch.empty(len(x), 1, device=x.device).uniform_(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp_()
        size = (torch.stack([area * ratio, area / ratio]).sqrt_().clamp_(max=1) * sides).round_()
        start = (torch.stack([torch.rand_like(side) for side in size]) * (sides - size + 1)).floor_()

        def along(side: int, length: int) -> Tensor:
            positions = torch.arange(length, device=x.device)
            return ((positions >= start[side]) & (positions < start[side] + size[side])).float()

        rows, columns = along(0, x.shape[2]), along(1, x.shape[3])
        return x * (1 - rows[:, None, :, None] * columns[:, None, None, :])


def _resampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply each image by its matrices (B, h, H) and (B, w, W), in the precision of autocast."""
    across = (x.float().flatten(1, 2) @ columns.mT).unflatten(1, x.shape[1:3])
    return (rows[:, None] @ across).float()


def _recolored(x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Multiply each pixel by the matrix (B, C, C) of its image, and add an offset."""
    with torch.autocast(x.device.type, enabled=False):  # rounding would take longer than these products
        return torch.baddbmm(offset, matrix, x.flatten(2)).view(x.shape)
