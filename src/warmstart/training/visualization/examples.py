"""Predictions for a few held-out texts in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl

from warmstart.core.batch import Batch
from warmstart.training.evaluation import converted, evaluating

EXAMPLES = 4


class Examples(pl.Callback):
    """Writes the objective's `examples` of a few validation rows, at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the examples if they can be shown as text."""
        preprocessor = trainer.datamodule.preprocessor
        decode = preprocessor.decode if "decode" in preprocessor.abilities else None
        objective = pl_module.objective
        if "examples" not in objective.abilities or (decode is None and objective.target != "text"):
            return
        raw = converted(trainer.datamodule.sample("validation", EXAMPLES), pl_module, trainer)
        batch = Batch(pl_module.augment.scale(raw.x), raw.y, raw.mask)
        with evaluating(pl_module, trainer=trainer):
            lines = objective.examples(pl_module.backbone, batch, decode)
        if lines:
            trainer.logger.writer.add_text("examples", "\n\n".join(lines), trainer.global_step)
