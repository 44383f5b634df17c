"""Word alignments of recordings in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.training.evaluation import converted, evaluating
from warmstart.training.visualization.images import images_of

SHOWN = 4


class Alignments(pl.Callback):
    """Plots spectrograms with the recognized words at their positions, at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot if the objective predicts text and the inputs can be shown as images."""
        data, objective = trainer.datamodule, pl_module.objective
        if objective.target != "text" or "to_images" not in data.preprocessor.abilities:
            return
        raw = converted(data.sample("validation", SHOWN), pl_module, trainer)
        batch = Batch(pl_module.augment.scale(raw.x), raw.y, raw.mask)
        with evaluating(pl_module, trainer=trainer):
            outputs = objective.predict(pl_module.backbone, batch)
        records, references = objective.to_records(outputs, batch, data.spec), objective.target_texts(batch.y)
        images = images_of(data.preprocessor, batch.x.float(), batch.mask)
        shares = [1.0] * len(references) if batch.mask is None else (batch.mask > 0).float().mean(1).tolist()
        seconds = [share * outputs.shape[1] * data.spec.seconds for share in shares]
        figure = draw_alignments(images, seconds, references, [record["words"] for record in records])
        trainer.logger.writer.add_figure("words over spectrograms", figure, trainer.global_step)


def draw_alignments(
    images: Sequence[Tensor], seconds: Sequence[float], references: Sequence[str], words: Sequence[list[dict[str, Any]]]
) -> object:
    """Plot spectrograms (1, mels, T) with their durations, the reference texts and the recognized words."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2 * len(images)), layout="constrained")
    FigureCanvasAgg(figure)
    axes_of = figure.subplots(len(images), sharex=True, squeeze=False)[:, 0]
    for axes, image, length, text, found in zip(axes_of, images, seconds, references, words):
        bands = image.shape[1]
        axes.imshow(image[0].numpy(), aspect="auto", extent=(0, length, 0, bands), cmap="magma", vmin=0, vmax=1)
        axes.set_title(f"reference: {text}", fontsize=10, loc="left")
        axes.set_yticks([])
        for word in found:
            axes.axvspan(word["start"], word["end"], ymin=0.9, color="white", alpha=0.8)
            axes.text(word["start"], bands * 0.8, word["word"], color="white", fontsize=9)
    axes.set_xlim(0, max(seconds))
    axes.set_xlabel("seconds")
    return figure
