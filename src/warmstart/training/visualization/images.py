"""Images of examples and grids of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.batch import Batch
from warmstart.training.evaluation import converted

SHOWN = 8
GAP = 1


def first_rows(trainer: pl.Trainer, count: int, module: pl.LightningModule) -> Batch:
    """Return scaled validation rows, evenly spaced over the split."""
    batch = converted(trainer.datamodule.sample("validation", count), module, trainer)
    batch.x = module.augment.scale(batch.x)
    return batch


def images_of(preprocessor: Any, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Return images (3 or 1, H, W), from 0 to 1, of scaled examples (N, ...), cropped to valid positions (N, T)."""
    images = preprocessor.to_images(x).cpu()
    if mask is None:
        return list(images)
    widths = ((mask > 0).float().mean(1) * images.shape[3]).round().int().tolist()
    return [image[:, :, :width] for image, width in zip(images, widths)]


def grid(kinds: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return a grid with one row per list of images (3 or 1, H, W), with values from 0 to 1."""
    rows = [torch.cat([F.pad(image, (GAP,) * 4, value=1) for image in kind], dim=2) for kind in kinds]
    return torch.cat(rows, dim=1)
