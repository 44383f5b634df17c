"""What people would rather look at than read, in TensorBoard: rebuilt images, confusions, features."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.contracts import Batch, Spec

PICTURES = 8
GAP = 1
POINTS = 500


def _first_rows(trainer: pl.Trainer, count: int, device: torch.device) -> Batch:
    """Scaled validation rows, spread evenly over the set."""
    batch = trainer.datamodule.sample("validation", count).to(device)
    batch.x = trainer.datamodule.preprocessor(batch.x)
    return batch


def grid(kinds: list[Tensor], alike: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    """One row per kind and one column per image (3 or 1, H, W), all scaled to the 0..1 of the first row's images.

    `alike` are the dimensions of a row (B, 3 or 1, H, W) that share one scale.
    """
    low = kinds[0].amin(alike, keepdim=True)
    high = kinds[0].amax(alike, keepdim=True)
    scaled = [((kind - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) for kind in kinds]
    framed = [F.pad(kind, (GAP,) * 4, value=0.5) for kind in scaled]
    return torch.cat([torch.cat(list(row), dim=2) for row in framed], dim=1)


class Reconstructions(pl.Callback):
    """Inputs, what the network saw, and what it rebuilt, below each other at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, for objectives that rebuild what can be drawn."""
        drawn = getattr(trainer.datamodule.preprocessor, "drawn", None)
        if drawn is None or not hasattr(pl_module.objective, "pictures"):
            return
        batch = _first_rows(trainer, PICTURES, pl_module.device)
        torch.manual_seed(0)
        with torch.inference_mode():
            kinds = pl_module.objective.pictures(pl_module.backbone, batch.x)
        writer = trainer.logger.writer
        rows = grid([drawn(kind).cpu() for kind in kinds])
        writer.add_image("input, corrupted, rebuilt", rows, trainer.global_step)


class Projector(pl.Callback):
    """The pooled features of validation rows before and after training, for TensorBoard's projector."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Features of the start point."""
        self._write(trainer, pl_module, "features before")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Features of the end point."""
        self._write(trainer, pl_module, "features after")

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, tag: str) -> None:
        batch = _first_rows(trainer, POINTS, module.device)
        training = module.training
        module.eval()
        with torch.inference_mode():
            pooled = module.backbone(batch.x, batch.mask).pooled.float().cpu()
        module.train(training)
        labels = trainer.datamodule.spec.labels
        names = [labels[int(row)] for row in batch.y] if isinstance(batch.y, Tensor) and batch.y.ndim == 1 else None
        trainer.logger.writer.add_embedding(pooled, metadata=names, tag=tag, global_step=trainer.global_step)


class Confusions(pl.Callback):
    """The confusion matrix of the test set, as a picture."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin counting."""
        self.counts = 0

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Count one batch."""
        if not isinstance(batch.y, Tensor) or batch.y.ndim != 1:
            return
        classes = trainer.datamodule.spec.outputs
        pairs = batch.y * classes + outputs.argmax(-1)
        self.counts = self.counts + torch.bincount(pairs, minlength=classes**2).view(classes, classes).cpu()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw."""
        if not isinstance(self.counts, int):
            figure = draw_confusions(self.counts.numpy(), trainer.datamodule.spec)
            trainer.logger.writer.add_figure("test confusion matrix", figure, trainer.global_step)


def draw_confusions(counts: np.ndarray, spec: Spec) -> object:
    """Rows are true classes, columns predicted ones; the shade is the share of the row."""
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
            shade = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=7)
    return figure
