"""Predictions and residuals of a regression in TensorBoard."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from warmstart.core.batch import Batch

SHOWN = 2000  # rows of a figure, evenly spaced over the test split
MAX_TARGETS = 6


class Residuals(pl.Callback):
    """Plots predictions against true values of the test split, and the residuals, for each target of a regression."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the kept values."""
        self.kept: list[tuple[Tensor, Tensor]] = []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Keep outputs and targets (B, K)."""
        if pl_module.objective.target == "value":
            self.kept.append((outputs.double().cpu(), batch.y.double().cpu()))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot both figures."""
        if not self.kept:
            return
        outputs, y = (torch.cat(values).numpy() for values in zip(*self.kept))
        rows = np.unique(np.linspace(0, len(y) - 1, min(len(y), SHOWN)).round().astype(int))
        names = trainer.datamodule.spec.labels
        writer, step = trainer.logger.writer, trainer.global_step
        writer.add_figure("test predicted against true", draw(y[rows], outputs[rows], names), step)
        writer.add_figure("test residuals", draw(outputs[rows], (outputs - y)[rows], names, residuals=True), step)


def draw(x: np.ndarray, values: np.ndarray, names: tuple[str, ...], residuals: bool = False) -> object:
    """Plot values (N, K) against x (N, K), one panel per target, with the line of exact predictions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = min(x.shape[1], MAX_TARGETS)
    figure = Figure(figsize=(4 * count, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name, own, value in zip(figure.subplots(1, count, squeeze=False)[0], names, x.T, values.T):
        axes.scatter(own, value, s=8, alpha=0.4, linewidths=0)
        if residuals:
            axes.axhline(0, color="black", linewidth=0.8)
        else:
            ends = (min(own.min(), value.min()), max(own.max(), value.max()))
            axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set_xlabel("predicted" if residuals else "true")
        axes.set_ylabel("predicted minus true" if residuals else "predicted")
        axes.set_title(name)
    return figure
