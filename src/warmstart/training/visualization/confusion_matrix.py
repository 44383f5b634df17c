"""Confusion matrices in TensorBoard."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.spec import Spec


class ConfusionMatrix(pl.Callback):
    """Plots the confusion matrix of the test split."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the counts."""
        self.counts = 0

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Count the predictions of a batch."""
        if not isinstance(batch.y, Tensor) or batch.y.ndim != 1:
            return
        classes = trainer.datamodule.spec.outputs
        pairs = batch.y * classes + outputs.argmax(-1)
        self.counts = self.counts + torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot the confusion matrix."""
        if not isinstance(self.counts, int):
            figure = draw_confusion_matrix(self.counts.cpu().numpy(), trainer.datamodule.spec)
            trainer.logger.writer.add_figure("test confusion matrix", figure, trainer.global_step)


def draw_confusion_matrix(counts: np.ndarray, spec: Spec) -> object:
    """Plot a confusion matrix with true classes as rows, predicted classes as columns, and colors normalized by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(spec.labels))
    axes.set_xticks(ticks, spec.labels, rotation=90)
    axes.set_yticks(ticks, spec.labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(spec.labels) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=7)
    return figure
