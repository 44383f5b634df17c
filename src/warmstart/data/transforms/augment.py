"""Random changes to whole batches, on the device they are on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.data.transforms import frames as frames
from warmstart.data.transforms import images as images
from warmstart.data.transforms import mixing as pairs

CACHED = 2**20  # values of a batch at a time, so that what is made on the way stays in a processor's cache


class Augment:
    """Raw batches to scaled ones with random changes, drawn per example; each change is off at its default.

    Pixels are moved before they are scaled, while an image is a quarter of the size.

    Args:
        scale: the preprocessor, which turns a raw batch into a scaled one; its `white` is that of raw pixels.
        modality: what the examples are; only images (B, C, H, W) can be changed by what follows, noise excepted.
        shift: pixels, at most, to move up, down, left and right; black comes in. A crop moves enough without.
        crop: smallest share of the area that a random crop keeps before it is resized back (1 is off).
        side: pixels a side that crops are resized to, fewer being faster (0 is as many as the image has).
        flip: mirror half of the images left to right.
        colour: strength of random brightness and contrast per example and scale per channel.
        grey: probability that a colour image loses its colour.
        blur: probability of a Gaussian blur.
        solarise: probability that the brighter half of the pixel values is inverted.
        erase: largest share of the area that a rectangle set to the mean covers.
        noise: standard deviation of Gaussian noise, in standard deviations of the data.
        warp: of the bands of speech, at most this share up or down.
        stretch: speech is at most this share faster.
        bands: most neighbouring bands of speech to hide, twice.
        gaps: most neighbouring positions of speech to hide, twice.
        mixup: alpha of the Beta distribution by which images or vectors are averaged with others of the batch.
        cutmix: that by which images get a rectangle of others.
    """

    MIXING = ("mixup", "cutmix")

    def __init__(
        self,
        scale: Callable[[Tensor], Tensor],
        modality: str,
        shift: int = 0,
        crop: float = 1.0,
        side: int = 0,
        flip: bool = False,
        colour: float = 0.0,
        grey: float = 0.0,
        blur: float = 0.0,
        solarise: float = 0.0,
        erase: float = 0.0,
        noise: float = 0.0,
        warp: float = 0.0,
        stretch: float = 0.0,
        bands: int = 0,
        gaps: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ):
        self.changes_images = bool(shift or flip or colour or grey or blur or solarise or erase or side or crop < 1)
        self.changes_speech = bool(warp or stretch or bands or gaps)
        if modality != "image" and self.changes_images:
            raise UserError(
                "data.augment: shift, crop, side, flip, colour, grey, blur, solarise and erase are for images; "
                f"this data is {modality}"
            )
        if modality != "speech" and self.changes_speech:
            raise UserError(f"data.augment: warp, stretch, bands and gaps are for speech; this data is {modality}")
        if self.changes_speech and not scale.spectral:
            raise UserError(
                "data.augment: warp, stretch, bands and gaps change spectrograms, and this model takes waveforms: "
                "leave them out"
            )
        if min(warp, stretch, bands, gaps) < 0 or max(warp, stretch) >= 1:
            raise UserError("data.augment: warp and stretch must be 0 or more and below 1, bands and gaps 0 or more")
        if modality == "text" and noise:
            raise UserError(f"data.augment.noise={noise} is added to values; this data is {modality}")
        if cutmix and modality != "image":
            raise UserError(f"data.augment.cutmix={cutmix} is for images; this data is {modality}")
        if mixup and modality not in ("image", "vector"):
            raise UserError(f"data.augment.mixup={mixup} is for images and vectors; this data is {modality}")
        if not 0 < crop <= 1:
            raise UserError(f"data.augment.crop={crop}: must be above 0 and at most 1")
        self.preprocessor, self.noise = scale, noise
        self.dtype: torch.dtype | None = None
        self.shift, self.crop, self.side, self.flip, self.colour = shift, crop, side, flip, colour
        self.grey, self.blur, self.solarise, self.erase = grey, blur, solarise, erase
        self.warp, self.stretch, self.bands, self.gaps = warp, stretch, bands, gaps
        self.mixup, self.cutmix = mixup, cutmix

    @property
    def changes_nothing(self) -> bool:
        """Whether every change of single examples is off."""
        return not (self.changes_images or self.changes_speech or self.noise)

    @property
    def mixing(self) -> str:
        """The first setting that mixes examples and their targets, as it is typed; empty where none does."""
        return next((f"data.augment.{name}={getattr(self, name)}" for name in self.MIXING if getattr(self, name)), "")

    def scale(self, x: Tensor) -> Tensor:
        """Return raw x scaled, and unchanged otherwise, in `dtype`, the model's."""
        return self._converted(self.preprocessor(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled and changed, of the same shape as the raw x but for `side`, in `dtype`, the model's."""
        if self.dtype in (None, torch.float32):
            return self._pieces(x)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # a Trainer makes it that of the model
        try:
            return self._converted(self._pieces(x.float() if x.is_floating_point() else x))
        finally:
            torch.set_default_dtype(before)

    def _converted(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if self.dtype is not None and x.is_floating_point() else x

    def _pieces(self, x: Tensor) -> Tensor:
        piece = max(1, CACHED // x[0].numel())
        if x.device.type == "cpu" and len(x) > piece and (self.crop < 1 or self.side or self.blur):
            return torch.cat([self._changed(part) for part in x.split(piece)])
        return self._changed(x)

    def mixed(self, batch: Batch) -> Batch:
        """A changed batch, each example mixed with another where that is asked."""
        return pairs.mixed(batch, self.mixup, self.cutmix) if self.mixing else batch

    def _changed(self, x: Tensor) -> Tensor:
        x = self._moved(x)
        if self.solarise:
            x = images.solarised(x, self.solarise, self.preprocessor.white)
        x = self.preprocessor(x)
        if self.colour or self.grey:
            x = images.recoloured(x, self.colour, self.grey)
        if self.warp or self.stretch:
            x = frames.warped(x, self.warp, self.stretch)
        if self.bands:
            x = frames.without_bands(x, self.bands)
        if self.gaps:
            x = frames.without_gaps(x, self.gaps)
        if self.noise:
            x = x + self.noise * torch.randn_like(x)
        return images.erased(x, self.erase) if self.erase else x

    def _moved(self, x: Tensor) -> Tensor:
        """Cropped or shifted, and blurred; pixels that are only shifted keep their type."""
        crops = self.crop < 1 or self.side
        if not crops and (self.shift or self.flip):
            x = images.moved(x, self.shift, self.flip)
        if not (crops or self.blur):
            return x
        height, width = (self.side,) * 2 if self.side else x.shape[2:]
        sides = images.crops(x, self.crop, self.flip, height, width) if crops else None
        if self.blur:
            blurs = images.blurs(x, self.blur, height, width)
            sides = blurs if sides is None else (blurs[0] @ sides[0], blurs[1] @ sides[1])
        return images.resampled(x, *sides)
