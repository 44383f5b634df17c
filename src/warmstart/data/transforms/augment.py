"""Scaling and random transforms of training batches, on the device of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from warmstart.core.batch import Batch, Part
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Transform
from warmstart.data.transforms.mixing import Mixing, mixed
from warmstart.distributed.part import computing, current, gathered

CACHED = 2**20  # values processed at a time, so that intermediate results fit in a CPU cache


class Augment:
    """Scales and randomly transforms raw batches.

    Raw transforms are applied first, as uint8 images are a quarter of the size; then the preprocessor scales, and the
    other transforms follow, both in the given order. Examples are mixed last.

    Args:
        preprocessor: scales a raw batch.
        transforms: by their names in `data.augment`.
        group: the override that chooses them.

    Raises:
        UserError: a transform is for spectrograms, which the preprocessor does not compute.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        transforms: Mapping[str, Transform] = MappingProxyType({}),
        group: str = "data/augment",
    ):
        for name, transform in transforms.items():
            if transform.spectral and not preprocessor.spectral:
                raise UserError(f"{group}={name} is for spectrograms, but this model takes waveforms: remove it")
        self.preprocessor = preprocessor
        self.dtype: torch.dtype | None = None
        self.mixing = {name: value for name, value in transforms.items() if isinstance(value, Mixing)}
        self.single = [value for name, value in transforms.items() if name not in self.mixing]
        for transform in self.single:
            transform.white = preprocessor.white

    def scale(self, x: Tensor) -> Tensor:
        """Return scaled x without transforms, in `dtype`, that of the model."""
        return self._converted(self.preprocessor(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Return scaled and transformed x in `dtype`, that of the model; only some transforms change the shape."""
        if self.dtype in (None, torch.float32):
            return self._transformed_in_chunks(x)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # a Trainer sets it to the dtype of the model
        try:
            return self._converted(self._transformed_in_chunks(x.float() if x.is_floating_point() else x))
        finally:
            torch.set_default_dtype(before)

    def mixed(self, batch: Batch) -> Batch:
        """Return the transformed batch with its examples mixed, if there is a mixing transform."""
        if not self.mixing:
            return batch
        if (part := batch.part) is None:
            return mixed(batch, list(self.mixing.values()))
        x, y, mask = (None if value is None else gathered(value, part) for value in (batch.x, batch.y, batch.mask))
        return mixed(Batch(x, y, mask), list(self.mixing.values())).rows(part)

    def _converted(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if self.dtype is not None and x.is_floating_point() else x

    def _transformed_in_chunks(self, x: Tensor) -> Tensor:
        chunk = max(1, CACHED // x[0].numel())
        part = current()
        if not self.single or x.device.type != "cpu" or (len(x) if part is None else part.total) <= chunk:
            return self._transformed(x)
        if part is None:
            return torch.cat([self._transformed(rows) for rows in x.split(chunk)])
        return torch.cat([self._transformed_rows(x, part, start, chunk) for start in range(0, part.total, chunk)])

    def _transformed_rows(self, x: Tensor, part: Part, start: int, chunk: int) -> Tensor:
        """Transform the rows of a part in one chunk of the global batch; without any, only draw its random numbers."""
        stop = min(start + chunk, part.total)
        first, last = max(part.start, start), min(part.stop, stop)
        if first >= last:
            with computing(Part(0, 1, stop - start)):
                return self._transformed(x[:1])[:0]
        with computing(Part(first - start, last - start, stop - start)):
            return self._transformed(x[first - part.start : last - part.start])

    def _transformed(self, x: Tensor) -> Tensor:
        for transform in self.single:
            x = transform(x) if transform.raw else x
        x = self.preprocessor(x)
        for transform in self.single:
            x = x if transform.raw else transform(x)
        return x
