"""Sentences with the most wrong tags in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.training.visualization.misclassifications import SHOWN, table


class TagErrors(pl.Callback):
    """Writes the test sentences with the most wrong tags, with their true and their predicted tags."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the kept sentences."""
        self.seen, self.kept = 0, []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the sentences with the most errors so far."""
        if "tagged" not in pl_module.objective.abilities:
            return
        pairs = pl_module.objective.tagged(outputs, batch.y)
        found = [
            (sum(one != two for one, two in zip(true, predicted)), row, " ".join(true), " ".join(predicted))
            for row, (true, predicted) in enumerate(pairs, self.seen)
        ]
        self.seen += len(found)
        wrong = [one for one in found if one[0]]
        self.kept = sorted([*self.kept, *wrong], key=lambda one: (-one[0], one[1]))[:SHOWN]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table."""
        data = trainer.datamodule
        if not self.kept or "decode" not in data.preprocessor.abilities:
            return
        tokens = data.pick("test", [row for _, row, *_ in self.kept]).x.tolist()
        cells = [
            (data.preprocessor.decode(row), true, predicted, str(errors))
            for row, (errors, _, true, predicted) in zip(tokens, self.kept)
        ]
        header = ("text", "true", "predicted", "wrong tags")
        trainer.logger.writer.add_text("worst tagged sentences", table(header, cells), trainer.global_step)
