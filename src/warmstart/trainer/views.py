"""What training makes of images before the network sees them, in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from warmstart.trainer.pictures import PICTURES, grid


class Views(pl.Callback):
    """A few training examples as they are and, below each other, all the views that a step would take of them."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what can be drawn, once a run; training's random numbers stay what they would have been."""
        drawn = getattr(trainer.datamodule.preprocessor, "drawn", None)
        if drawn is None or trainer.global_step > 0:
            return
        device = pl_module.device
        raw = trainer.datamodule.sample("train", PICTURES).to(device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)
            seen = pl_module.views(raw).x.chunk(pl_module.objective.views)
        kinds = [drawn(kind).cpu() for kind in (pl_module.augment.scale(raw.x), *seen)]
        kinds = [F.interpolate(kind, kinds[0].shape[2:]) for kind in kinds]
        trainer.logger.writer.add_image("augmented views", grid(kinds, alike=(0, 2, 3)), trainer.global_step)
