"""Augmented views in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
from torch.nn import functional as F

from warmstart.training.evaluation import converted, evaluating
from warmstart.training.visualization.images import SHOWN, grid, images_of


class Views(pl.Callback):
    """Shows a few training examples and their augmented views."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the views once per run, if they can be shown as images."""
        preprocessor = trainer.datamodule.preprocessor
        if "to_images" not in preprocessor.abilities or trainer.global_step > 0:
            return
        raw = converted(trainer.datamodule.sample("train", SHOWN), pl_module, trainer)
        with evaluating(pl_module, trainer=trainer):
            seen = pl_module.views(raw).x.float().chunk(pl_module.objective.views)
        own, *rows = [images_of(preprocessor, x, raw.mask) for x in (pl_module.augment.scale(raw.x).float(), *seen)]
        sized = [[F.interpolate(one[None], to.shape[1:])[0] for one, to in zip(row, own)] for row in rows]
        trainer.logger.writer.add_image("augmented views", grid([own, *sized]), trainer.global_step)
