"""What people would rather look at than read, in TensorBoard: rebuilt images, confusions, features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core.batch import Batch
from warmstart.core.spec import Spec
from warmstart.training.evaluation import converted, evaluating

PICTURES = 8
GAP = 1
POINTS = 500
THUMBNAIL = 64  # pixels a side, at most


def _first_rows(trainer: pl.Trainer, count: int, module: pl.LightningModule) -> Batch:
    """Scaled validation rows, spread evenly over the set."""
    batch = converted(trainer.datamodule.sample("validation", count), module, trainer)
    batch.x = module.augment.scale(batch.x)
    return batch


def drawn(preprocessor: Any, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Pictures (3 or 1, H, W), from 0 to 1, of scaled examples (N, ...), each as wide as its valid share (N, T)."""
    pictures = preprocessor.to_images(x).cpu()
    if mask is None:
        return list(pictures)
    widths = ((mask > 0).float().mean(1) * pictures.shape[3]).round().int().tolist()
    return [picture[:, :, :width] for picture, width in zip(pictures, widths)]


def grid(kinds: Sequence[Sequence[Tensor]]) -> Tensor:
    """One row per kind and one column per picture (3 or 1, H, W), with values from 0 to 1."""
    rows = [torch.cat([F.pad(picture, (GAP,) * 4, value=1) for picture in kind], dim=2) for kind in kinds]
    return torch.cat(rows, dim=1)


def _thumbnails(pictures: list[Tensor]) -> Tensor:
    """Pictures pressed into squares of one size (N, 3 or 1, S, S)."""
    side = min(THUMBNAIL, pictures[0].shape[1])
    return torch.cat([F.interpolate(picture[None], (side, side), mode="area") for picture in pictures])


class Reconstructions(pl.Callback):
    """Inputs, what the network saw, and what it rebuilt, below each other at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, for objectives that rebuild what can be drawn."""
        preprocessor = trainer.datamodule.preprocessor
        if not ("to_images" in preprocessor.abilities and "pictures" in pl_module.objective.abilities):
            return
        batch = _first_rows(trainer, PICTURES, pl_module)
        with evaluating(pl_module, trainer=trainer):
            kinds = pl_module.objective.pictures(pl_module.backbone, batch)
        rows = grid([drawn(preprocessor, kind.float(), batch.mask) for kind in kinds])
        trainer.logger.writer.add_image("input, corrupted, rebuilt", rows, trainer.global_step)


class Projector(pl.Callback):
    """The pooled features of validation rows before and after training, for TensorBoard's projector."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Features of the start point."""
        if trainer.global_step == 0:
            self._write(trainer, pl_module, "features before")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Features of the end point."""
        self._write(trainer, pl_module, "features after")

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, tag: str) -> None:
        data = trainer.datamodule
        batch = _first_rows(trainer, POINTS, module)
        with evaluating(module, trainer=trainer):
            pooled = module.backbone(batch.x, batch.mask).pooled.float().cpu()
        labels = data.spec.labels
        names = [labels[int(row)] for row in batch.y] if isinstance(batch.y, Tensor) and batch.y.ndim == 1 else None
        has_pictures = "to_images" in data.preprocessor.abilities
        pictures = _thumbnails(drawn(data.preprocessor, batch.x.float(), batch.mask)) if has_pictures else None
        trainer.logger.writer.add_embedding(pooled, names, pictures, trainer.global_step, tag)


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
        self.counts = self.counts + torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw."""
        if not isinstance(self.counts, int):
            figure = draw_confusions(self.counts.cpu().numpy(), trainer.datamodule.spec)
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


class Views(pl.Callback):
    """A few training examples as they are and, below each other, all the views that a step would take of them."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what can be drawn, once a run."""
        preprocessor = trainer.datamodule.preprocessor
        if "to_images" not in preprocessor.abilities or trainer.global_step > 0:
            return
        raw = converted(trainer.datamodule.sample("train", PICTURES), pl_module, trainer)
        with evaluating(pl_module, trainer=trainer):
            seen = pl_module.views(raw).x.float().chunk(pl_module.objective.views)
        own, *rows = [drawn(preprocessor, x, raw.mask) for x in (pl_module.augment.scale(raw.x).float(), *seen)]
        sized = [[F.interpolate(one[None], to.shape[1:])[0] for one, to in zip(row, own)] for row in rows]
        trainer.logger.writer.add_image("augmented views", grid([own, *sized]), trainer.global_step)
