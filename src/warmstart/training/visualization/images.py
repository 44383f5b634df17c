"""Images of examples, and grids of them."""

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
    """Scaled validation rows, spread evenly over the set."""
    batch = converted(trainer.datamodule.sample("validation", count), module, trainer)
    batch.x = module.augment.scale(batch.x)
    return batch


def drawn(preprocessor: Any, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Pictures (3 or 1, H, W), from 0 to 1, of scaled examples (N, ...), each as wide as its valid share (N, T)."""
    pictures = preprocessor.to_images(x).cpu()
    if mask is None:
        return list(pictures)
    widths = ((mask > 0).float().mean(1) * pictures.shape[3]).round().int().tolist()
    return [picture[:, :, :width] for picture, width in zip(pictures, widths)]


def grid(kinds: Sequence[Sequence[Tensor]]) -> Tensor:
    """One row per kind and one column per picture (3 or 1, H, W), with values from 0 to 1."""
    rows = [torch.cat([F.pad(picture, (GAP,) * 4, value=1) for picture in kind], dim=2) for kind in kinds]
    return torch.cat(rows, dim=1)
