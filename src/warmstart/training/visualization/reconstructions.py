"""Rebuilt images in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl

from warmstart.training.evaluation import evaluating
from warmstart.training.visualization.images import SHOWN, drawn, first_rows, grid


class Reconstructions(pl.Callback):
    """Inputs, what the network saw, and what it rebuilt, below each other at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, for objectives that rebuild what can be drawn."""
        preprocessor = trainer.datamodule.preprocessor
        if not ("to_images" in preprocessor.abilities and "pictures" in pl_module.objective.abilities):
            return
        batch = first_rows(trainer, SHOWN, pl_module)
        with evaluating(pl_module, trainer=trainer):
            kinds = pl_module.objective.pictures(pl_module.backbone, batch)
        rows = grid([drawn(preprocessor, kind.float(), batch.mask) for kind in kinds])
        trainer.logger.writer.add_image("input, corrupted, rebuilt", rows, trainer.global_step)
