"""Features in TensorBoard's projector."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.training.evaluation import evaluating
from warmstart.training.visualization.images import drawn, first_rows

POINTS = 500
THUMBNAIL = 64  # pixels a side, at most


class Projector(pl.Callback):
    """The pooled features of validation rows before and after training, for TensorBoard's projector."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Features of the start point."""
        if trainer.global_step == 0:
            self._write(trainer, pl_module, "features before")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Features of the end point."""
        self._write(trainer, pl_module, "features after")

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, tag: str) -> None:
        data = trainer.datamodule
        batch = first_rows(trainer, POINTS, module)
        with evaluating(module, trainer=trainer):
            pooled = module.backbone(batch.x, batch.mask).pooled.float().cpu()
        labels = data.spec.labels
        names = [labels[int(row)] for row in batch.y] if isinstance(batch.y, Tensor) and batch.y.ndim == 1 else None
        has_pictures = "to_images" in data.preprocessor.abilities
        pictures = _thumbnails(drawn(data.preprocessor, batch.x.float(), batch.mask)) if has_pictures else None
        trainer.logger.writer.add_embedding(pooled, names, pictures, trainer.global_step, tag)


def _thumbnails(pictures: list[Tensor]) -> Tensor:
    """Pictures pressed into squares of one size (N, 3 or 1, S, S)."""
    side = min(THUMBNAIL, pictures[0].shape[1])
    return torch.cat([F.interpolate(picture[None], (side, side), mode="area") for picture in pictures])
