"""Features in TensorBoard's embedding projector."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.training.evaluation import evaluating
from warmstart.training.visualization.images import first_rows, images_of

POINTS = 500
THUMBNAIL = 64  # maximum height and width in pixels


class Projector(pl.Callback):
    """Writes the pooled features of validation rows before and after training to TensorBoard's projector."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the features of the initial weights."""
        if trainer.global_step == 0:
            self._write(trainer, pl_module, "features before")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the features of the final weights."""
        self._write(trainer, pl_module, "features after")

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, tag: str) -> None:
        data = trainer.datamodule
        batch = first_rows(trainer, POINTS, module)
        with evaluating(module, trainer=trainer):
            pooled = module.backbone(batch.x, batch.mask).pooled.float().cpu()
        labels = data.spec.labels
        names = [labels[int(row)] for row in batch.y] if isinstance(batch.y, Tensor) and batch.y.ndim == 1 else None
        has_images = "to_images" in data.preprocessor.abilities
        images = _thumbnails(images_of(data.preprocessor, batch.x.float(), batch.mask)) if has_images else None
        trainer.logger.writer.add_embedding(pooled, names, images, trainer.global_step, tag)


def _thumbnails(images: list[Tensor]) -> Tensor:
    """Resize images to squares of one size: (N, 3 or 1, S, S)."""
    side = min(THUMBNAIL, images[0].shape[1])
    return torch.cat([F.interpolate(image[None], (side, side), mode="area") for image in images])
