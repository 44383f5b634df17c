"""The most confident mistakes on the test split in TensorBoard, as images, texts or audio."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.training.visualization.audio import add_audio, has_audio

SHOWN = 12
MAX_CHARACTERS = 300  # of a text in a table
COLUMNS = 3
TAG = "most confident mistakes"


class Misclassifications(pl.Callback):
    """Writes the test examples with the highest probability of a wrong class: a figure of images, or a table."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the kept mistakes."""
        self.seen, self.kept = 0, None

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the most confident mistakes, on the device: probability (K,), row, true and predicted class."""
        if not isinstance(batch.y, Tensor) or batch.y.ndim != 1:
            return
        probability, predicted = outputs.float().softmax(-1).max(-1)
        rows = torch.arange(self.seen, self.seen + len(predicted), device=predicted.device)
        self.seen += len(predicted)
        found = (probability.masked_fill(predicted == batch.y, 0), rows, batch.y, predicted)
        if self.kept is not None:
            found = tuple(map(torch.cat, zip(self.kept, found)))
        worst = found[0].argsort(descending=True, stable=True)[:SHOWN]
        self.kept = tuple(values[worst] for values in found)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the mistakes if the examples are images, texts or recordings."""
        if self.kept is None:
            return
        data, writer = trainer.datamodule, trainer.logger.writer
        labels, preprocessor = data.spec.labels, data.preprocessor
        wrong = [found for found in zip(*(values.tolist() for values in self.kept)) if found[0] > 0]
        rows = [row for _, row, *_ in wrong]
        verdicts = [(labels[true], labels[predicted], f"{sure:.1%}") for sure, _, true, predicted in wrong]
        if not wrong:
            return
        header = ("true", "predicted", "probability")
        if has_audio(data.raw_test):
            recordings = data.raw_test.iloc[rows]
            cells = [(*verdict, file) for verdict, file in zip(verdicts, recordings.file)]
            writer.add_text(TAG, table((*header, "file"), cells), trainer.global_step)
            names = [f"{true} predicted as {predicted}" for true, predicted, _ in verdicts]
            add_audio(writer, TAG, recordings, names, trainer.global_step)
        elif "decode" in preprocessor.abilities:
            texts = [preprocessor.decode(row) for row in data.pick("test", rows).x.tolist()]
            cells = [(*verdict, text) for verdict, text in zip(verdicts, texts)]
            writer.add_text(TAG, table((*header, "text"), cells), trainer.global_step)
        elif "to_images" in preprocessor.abilities:
            images = preprocessor.to_images(preprocessor(data.pick("test", rows).x))
            writer.add_figure(TAG, draw_misclassifications(images, verdicts), trainer.global_step)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a numbered table in Markdown; cells are escaped, and long texts are truncated."""
    lines = [("", *header), ["---"] * (1 + len(header))]
    lines += [(str(number), *map(_plain, row)) for number, row in enumerate(rows, 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    text = " ".join(text.split())
    text = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
    return re.sub(r"([\\`*_{}\[\]|])", r"\\\1", html.escape(text, quote=False))


def draw_misclassifications(images: Tensor, verdicts: Sequence[tuple[str, str, str]]) -> object:
    """Plot images (N, 3 or 1, H, W) with values from 0 to 1, with true class, predicted class and probability."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(1.5 * COLUMNS, 1.9 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, COLUMNS, squeeze=False).flat
    for axes in grid:
        axes.set_axis_off()
    for axes, image, (true, predicted, sure) in zip(figure.axes, images, verdicts):
        axes.imshow(image.permute(1, 2, 0).expand(-1, -1, 3).numpy(), vmin=0, vmax=1)
        axes.set_title(f"{true}\npredicted as {predicted}\n{sure}", fontsize=9)
    return figure
