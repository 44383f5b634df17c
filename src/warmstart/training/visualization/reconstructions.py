"""Reconstructions of inputs in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl

from warmstart.training.evaluation import evaluating
from warmstart.training.visualization.images import SHOWN, first_rows, grid, images_of


class Reconstructions(pl.Callback):
    """Shows inputs, corrupted inputs and reconstructions as a grid, at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the grid if the objective reconstructs inputs that can be shown as images."""
        preprocessor = trainer.datamodule.preprocessor
        if not ("to_images" in preprocessor.abilities and "reconstructions" in pl_module.objective.abilities):
            return
        batch = first_rows(trainer, SHOWN, pl_module)
        with evaluating(pl_module, trainer=trainer):
            kinds = pl_module.objective.reconstructions(pl_module.backbone, batch)
        rows = grid([images_of(preprocessor, kind.float(), batch.mask) for kind in kinds])
        trainer.logger.writer.add_image("input, corrupted, reconstructed", rows, trainer.global_step)
