"""What people would rather hear, and when each word of it was said, in TensorBoard."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from warmstart.contracts import Batch

SHOWN = 4


class Players(pl.Callback):
    """The same few validation recordings that the examples are of, to be played."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, where the data are recordings."""
        rows = trainer.datamodule.shown
        if "audio" not in getattr(rows, "columns", ()):
            return
        for number, row in enumerate(rows.itertuples()):
            sound = torch.from_numpy(row.audio)[None] / max(abs(row.audio).max(), 1e-6)
            trainer.logger.writer.add_audio(f"recording {number}", sound, sample_rate=int(row.rate))


class Alignments(pl.Callback):
    """Spectrograms with the words that were understood, where they were, at every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, for objectives that say when each word was said; without a trace in training."""
        data, objective = trainer.datamodule, pl_module.objective
        if objective.target != "text" or not hasattr(data.preprocessor, "drawn"):
            return
        raw = data.sample("validation", SHOWN).to(pl_module.device)
        batch = Batch(pl_module.augment.scale(raw.x), raw.y, raw.mask)
        training = pl_module.training
        pl_module.eval()
        with torch.no_grad():
            outputs = objective.predict(pl_module.backbone, batch)
        pl_module.train(training)
        records, said = objective.answer(outputs, batch, data.spec), objective.spell(batch.y)
        pictures = data.preprocessor.drawn(batch.x)[:, 0].cpu().numpy()
        seconds = outputs.shape[1] * data.spec.seconds
        figure = draw_alignments(pictures, seconds, said, [record["words"] for record in records])
        trainer.logger.writer.add_figure("words over spectrograms", figure, trainer.global_step)


def draw_alignments(pictures: Any, seconds: float, said: list[str], words: list[list[dict[str, Any]]]) -> object:
    """Spectrograms (N, mels, T) of so many seconds, each under what was said and with the words that were found."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2 * len(pictures)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, picture, text, found in zip(figure.subplots(len(pictures), squeeze=False)[:, 0], pictures, said, words):
        axes.imshow(picture, aspect="auto", extent=(0, seconds, 0, len(picture)), cmap="magma")
        axes.set_title(text, fontsize=9)
        axes.set_yticks([])
        for word in found:
            axes.axvspan(word["start"], word["end"], ymin=0.9, color="white", alpha=0.8)
            axes.text(word["start"], len(picture) * 0.8, word["word"], color="white", fontsize=9)
    axes.set_xlabel("seconds")
    return figure
