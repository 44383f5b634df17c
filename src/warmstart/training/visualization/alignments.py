"""When each word of a recording was said, in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.training.evaluation import converted, evaluating
from warmstart.training.visualization.images import drawn

SHOWN = 4


class Alignments(pl.Callback):
    """Spectrograms with the words that were understood, where they were, at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, for objectives that say when each word was said."""
        data, objective = trainer.datamodule, pl_module.objective
        if objective.target != "text" or "to_images" not in data.preprocessor.abilities:
            return
        raw = converted(data.sample("validation", SHOWN), pl_module, trainer)
        batch = Batch(pl_module.augment.scale(raw.x), raw.y, raw.mask)
        with evaluating(pl_module, trainer=trainer):
            outputs = objective.predict(pl_module.backbone, batch)
        records, said = objective.to_records(outputs, batch, data.spec), objective.spell(batch.y)
        pictures = drawn(data.preprocessor, batch.x.float(), batch.mask)
        shares = [1.0] * len(said) if batch.mask is None else (batch.mask > 0).float().mean(1).tolist()
        seconds = [share * outputs.shape[1] * data.spec.seconds for share in shares]
        figure = draw_alignments(pictures, seconds, said, [record["words"] for record in records])
        trainer.logger.writer.add_figure("words over spectrograms", figure, trainer.global_step)


def draw_alignments(
    pictures: Sequence[Tensor], seconds: Sequence[float], said: Sequence[str], words: Sequence[list[dict[str, Any]]]
) -> object:
    """Spectrograms (1, mels, T), each of so many seconds, under what was said and with the words that were found."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2 * len(pictures)), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(len(pictures), sharex=True, squeeze=False)[:, 0]
    for axes, picture, length, text, found in zip(places, pictures, seconds, said, words):
        bands = picture.shape[1]
        axes.imshow(picture[0].numpy(), aspect="auto", extent=(0, length, 0, bands), cmap="magma", vmin=0, vmax=1)
        axes.set_title(f"said: {text}", fontsize=10, loc="left")
        axes.set_yticks([])
        for word in found:
            axes.axvspan(word["start"], word["end"], ymin=0.9, color="white", alpha=0.8)
            axes.text(word["start"], bands * 0.8, word["word"], color="white", fontsize=9)
    axes.set_xlim(0, max(seconds))
    axes.set_xlabel("seconds")
    return figure
