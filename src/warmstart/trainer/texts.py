"""What a model makes of a few held-out texts, in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from warmstart.contracts import Batch

EXAMPLES = 4


class Examples(pl.Callback):
    """The same few validation rows at every validation, as the objective writes them out."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, where examples can be read as text; training's random numbers stay what they would have been.

        Without gradients rather than in inference mode: what a backbone keeps from this call, such as a table of
        positions, must still serve training.
        """
        decode = getattr(trainer.datamodule.preprocessor, "decode", None)
        objective = pl_module.objective
        if not hasattr(objective, "examples") or (decode is None and getattr(objective, "target", None) != "text"):
            return
        device, training = pl_module.device, pl_module.training
        raw = trainer.datamodule.sample("validation", EXAMPLES).to(device)
        batch = Batch(pl_module.augment.scale(raw.x), raw.y, raw.mask)
        pl_module.eval()
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)
            lines = objective.examples(pl_module.backbone, batch, decode)
        pl_module.train(training)
        if lines:
            trainer.logger.writer.add_text("examples", "\n\n".join(lines), trainer.global_step)
