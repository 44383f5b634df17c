"""Random changes to training batches, on the device they are on: the transforms of `data.augment` and the scaling."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Transform
from warmstart.data.transforms.mixing import Mixing, mixed

CACHED = 2**20  # values of a batch at a time, so that intermediate results stay in a processor's cache


class Augment:
    """Raw batches to scaled, randomly changed ones.

    Raw transforms act first, while an image of bytes is a quarter of the size; then the preprocessor scales, and the
    other transforms follow, each in the order given. Examples are mixed last.

    Args:
        preprocessor: turns a raw batch into a scaled one.
        transforms: by their names in `data.augment`.

    Raises:
        UserError: a transform changes spectrograms, which the preprocessor does not compute.
    """

    def __init__(self, preprocessor: Preprocessor, transforms: Mapping[str, Transform] = MappingProxyType({})):
        for name, transform in transforms.items():
            if transform.spectral and not preprocessor.spectral:
                raise UserError(
                    f"data/augment={name} changes spectrograms, and this model takes waveforms: leave it out"
                )
        self.preprocessor = preprocessor
        self.dtype: torch.dtype | None = None
        self.mixing = {name: value for name, value in transforms.items() if isinstance(value, Mixing)}
        self.single = [value for name, value in transforms.items() if name not in self.mixing]
        for transform in self.single:
            transform.white = preprocessor.white

    def scale(self, x: Tensor) -> Tensor:
        """Return raw x scaled, and unchanged otherwise, in `dtype`, the model's."""
        return self._converted(self.preprocessor(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled and changed, of the same shape as the raw x unless a transform resizes, in `dtype`, the model's."""
        if self.dtype in (None, torch.float32):
            return self._pieces(x)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # a Trainer makes it that of the model
        try:
            return self._converted(self._pieces(x.float() if x.is_floating_point() else x))
        finally:
            torch.set_default_dtype(before)

    def mixed(self, batch: Batch) -> Batch:
        """A changed batch, each example mixed with another where a transform mixes."""
        return mixed(batch, list(self.mixing.values())) if self.mixing else batch

    def _converted(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if self.dtype is not None and x.is_floating_point() else x

    def _pieces(self, x: Tensor) -> Tensor:
        piece = max(1, CACHED // x[0].numel())
        if self.single and x.device.type == "cpu" and len(x) > piece:
            return torch.cat([self._changed(part) for part in x.split(piece)])
        return self._changed(x)

    def _changed(self, x: Tensor) -> Tensor:
        for transform in self.single:
            x = transform(x) if transform.raw else x
        x = self.preprocessor(x)
        for transform in self.single:
            x = x if transform.raw else transform(x)
        return x
