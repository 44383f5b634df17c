"""Augmented views in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
from torch.nn import functional as F

from warmstart.training.evaluation import converted, evaluating
from warmstart.training.visualization.images import SHOWN, drawn, grid


class Views(pl.Callback):
    """A few training examples as they are and, below each other, all the views that a step would take of them."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what can be drawn, once a run."""
        preprocessor = trainer.datamodule.preprocessor
        if "to_images" not in preprocessor.abilities or trainer.global_step > 0:
            return
        raw = converted(trainer.datamodule.sample("train", SHOWN), pl_module, trainer)
        with evaluating(pl_module, trainer=trainer):
            seen = pl_module.views(raw).x.float().chunk(pl_module.objective.views)
        own, *rows = [drawn(preprocessor, x, raw.mask) for x in (pl_module.augment.scale(raw.x).float(), *seen)]
        sized = [[F.interpolate(one[None], to.shape[1:])[0] for one, to in zip(row, own)] for row in rows]
        trainer.logger.writer.add_image("augmented views", grid([own, *sized]), trainer.global_step)
