"""Audio of recordings in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch

SHOWN = 4
NAME = 60  # maximum characters of a title


class Audio(pl.Callback):
    """Writes the audio of the validation recordings that `Examples` shows."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the audio if the data are recordings."""
        data, objective = trainer.datamodule, pl_module.objective
        if not has_audio(data.shown):
            return
        is_text = objective.target == "text"
        names = objective.target_texts(data.sample("validation", SHOWN).y) if is_text else data.shown.file
        add_audio(trainer.logger.writer, "recordings", data.shown, names, trainer.global_step)


def has_audio(rows: Any) -> bool:
    """Return whether raw rows are recordings: a table with the column audio."""
    return isinstance(rows, pd.DataFrame) and "audio" in rows


def add_audio(writer: Any, tag: str, recordings: Any, names: Sequence[str], step: int) -> None:
    """Write the first few recordings of a table with the columns audio and rate, normalized by their peaks."""
    for number, (row, name) in enumerate(zip(recordings[:SHOWN].itertuples(), names), 1):
        sound = torch.from_numpy(row.audio)[None] / max(abs(row.audio).max(), 1e-6)
        writer.add_audio(f"{tag}/{number} {name[:NAME]}", sound, step, sample_rate=int(row.rate))
