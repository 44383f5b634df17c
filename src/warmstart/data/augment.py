"""Random changes to whole batches, on the device they are on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.contracts import UserError
from warmstart.data.augment_frames import hide_bands, hide_gaps, warp_and_stretch


class Augment:
    """Raw batches to scaled ones with random changes, drawn per example; each change is off at its default.

    Pixels are moved before they are scaled, while an image is a quarter of the size.

    Args:
        scale: the preprocessor, which turns a raw batch into a scaled one.
        modality: what the examples are; only images (B, C, H, W) can be moved, cropped, flipped or recoloured.
        shift: pixels, at most, to move up, down, left and right; black comes in.
        crop: smallest share of the area that a random crop keeps before it is resized back (1 is off).
        flip: mirror half of the images left to right.
        colour: strength of random brightness and contrast per example and scale per channel.
        noise: standard deviation of Gaussian noise, in standard deviations of the data.
        warp: of the bands of speech, at most this share up or down.
        stretch: speech is at most this share faster.
        bands: most neighbouring bands of speech to hide, twice.
        gaps: most neighbouring positions of speech to hide, twice.
    """

    def __init__(
        self,
        scale: Callable[[Tensor], Tensor],
        modality: str,
        shift: int = 0,
        crop: float = 1.0,
        flip: bool = False,
        colour: float = 0.0,
        noise: float = 0.0,
        warp: float = 0.0,
        stretch: float = 0.0,
        bands: int = 0,
        gaps: int = 0,
    ):
        if modality != "image" and (shift or crop < 1 or flip or colour):
            raise UserError(f"data.augment: shift, crop, flip and colour are for images; this data is {modality}")
        if modality != "speech" and (warp or stretch or bands or gaps):
            raise UserError(f"data.augment: warp, stretch, bands and gaps are for speech; this data is {modality}")
        if min(warp, stretch, bands, gaps) < 0 or max(warp, stretch) >= 1:
            raise UserError("data.augment: warp and stretch must be 0 or more and below 1, bands and gaps 0 or more")
        if modality == "text" and noise:
            raise UserError(f"data.augment.noise={noise} is added to values; this data is {modality}")
        if not 0 < crop <= 1:
            raise UserError(f"data.augment.crop={crop}: must be above 0 and at most 1")
        self.scale = scale
        self.shift, self.crop, self.flip, self.colour, self.noise = shift, crop, flip, colour, noise
        self.warp, self.stretch, self.bands, self.gaps = warp, stretch, bands, gaps

    @property
    def changes_nothing(self) -> bool:
        """Whether every change is off."""
        images = self.shift or self.flip or self.colour or self.crop < 1
        return not (images or self.noise or self.warp or self.stretch or self.bands or self.gaps)

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled and changed, of the same shape as the raw x."""
        if self.crop < 1:
            x = self._resized_crop(x.float())
        elif self.shift or self.flip:
            x = self._shift_and_flip(x)
        x = self.scale(x)
        if self.colour:
            x = self._recolour(x)
        if self.warp or self.stretch:
            x = warp_and_stretch(x, self.warp, self.stretch)
        if self.bands:
            x = hide_bands(x, self.bands)
        if self.gaps:
            x = hide_gaps(x, self.gaps)
        if self.noise:
            x = x + self.noise * torch.randn_like(x)
        return x

    def _shift_and_flip(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        device = x.device
        rows = torch.arange(height, device=device).expand(batch, height)
        columns = torch.arange(width, device=device).expand(batch, width)
        if self.flip:
            mirrored = torch.rand(batch, 1, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        if self.shift:
            x = F.pad(x, (self.shift,) * 4)
            offsets = torch.randint(0, 2 * self.shift + 1, (2, batch, 1), device=device)
            rows, columns = rows + offsets[0], columns + offsets[1]
        flat = rows[:, :, None] * x.shape[-1] + columns[:, None, :]
        index = flat.reshape(batch, 1, -1).expand(-1, channels, -1)
        return x.flatten(2).gather(2, index).view(batch, channels, height, width)

    def _resized_crop(self, x: Tensor) -> Tensor:
        """Crops of random area and aspect ratio 3/4 to 4/3 (Szegedy et al. 2015), bilinear."""
        batch = len(x)
        area = torch.empty(batch, device=x.device).uniform_(self.crop, 1)
        ratio = torch.empty(batch, device=x.device).uniform_(-0.288, 0.288).exp()
        size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
        center = (torch.rand(batch, 2, device=x.device) * 2 - 1) * (1 - size)
        theta = torch.zeros(batch, 2, 3, device=x.device)
        theta[:, 0, 0], theta[:, 1, 1] = size[:, 0], size[:, 1]
        if self.flip:
            theta[:, 0, 0] *= torch.randint(0, 2, (batch,), device=x.device) * 2 - 1
        theta[:, :, 2] = center
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    def _recolour(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]

        def draw(*shape: int) -> Tensor:
            return torch.empty(*shape, device=x.device).uniform_(-self.colour, self.colour)

        mean = x.mean((1, 2, 3), keepdim=True)
        contrast = 1 + draw(batch, 1, 1, 1)
        return ((x - mean) * contrast + mean) * (1 + draw(batch, channels, 1, 1)) + draw(batch, 1, 1, 1)
