"""Transcripts with the most errors in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.training.visualization.audio import add_audio
from warmstart.training.visualization.misclassifications import SHOWN, table


class TranscriptErrors(pl.Callback):
    """Writes reference, transcript and audio of the test recordings with the most word errors."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the kept transcripts."""
        self.seen, self.kept = 0, []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the transcripts with the most errors so far."""
        if pl_module.objective.target != "text":
            return
        compared = pl_module.metrics["errors"].compared
        found = [
            (errors, row, reference, text)
            for row, (errors, reference, text) in enumerate(compared, self.seen)
            if errors
        ]
        self.seen += len(compared)
        self.kept = sorted([*self.kept, *found], key=lambda one: (-one[0], one[1]))[:SHOWN]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table and the audio."""
        if not self.kept:
            return
        writer, recordings = trainer.logger.writer, trainer.datamodule.raw_test.iloc[[row for _, row, *_ in self.kept]]
        cells = [
            (reference, text or "(empty)", str(errors), file)
            for (errors, _, reference, text), file in zip(self.kept, recordings.file)
        ]
        header = ("reference", "transcript", "word errors", "file")
        writer.add_text("worst transcripts", table(header, cells), trainer.global_step)
        add_audio(
            writer,
            "worst transcripts",
            recordings,
            [reference for _, _, reference, _ in self.kept],
            trainer.global_step,
        )
