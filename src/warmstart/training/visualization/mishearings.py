"""The worst transcripts of the test set, in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.training.visualization.mistakes import SHOWN, table
from warmstart.training.visualization.players import play


class Mishearings(pl.Callback):
    """The test recordings with the most wrong words: what was said beside what was understood, and to be played."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self.seen, self.kept = 0, []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the worst so far."""
        if pl_module.objective.target != "text":
            return
        compared = pl_module.metrics["errors"].compared
        found = [(errors, row, said, heard) for row, (errors, said, heard) in enumerate(compared, self.seen) if errors]
        self.seen += len(compared)
        self.kept = sorted([*self.kept, *found], key=lambda one: (-one[0], one[1]))[:SHOWN]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write."""
        if not self.kept:
            return
        writer, sounds = trainer.logger.writer, trainer.datamodule.raw_test.iloc[[row for _, row, *_ in self.kept]]
        cells = [
            (said, heard or "(nothing)", str(errors), file)
            for (errors, _, said, heard), file in zip(self.kept, sounds.file)
        ]
        header = ("said", "understood", "wrong words", "file")
        writer.add_text("worst transcripts", table(header, cells), trainer.global_step)
        play(writer, "worst transcripts", sounds, [said for _, _, said, _ in self.kept], trainer.global_step)
