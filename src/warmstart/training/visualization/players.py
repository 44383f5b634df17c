"""Recordings, to be played in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch

SHOWN = 4
NAME = 60  # letters of a player's name


class Players(pl.Callback):
    """The same few validation recordings that the examples are of, to be played."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, where the data are recordings."""
        data, objective = trainer.datamodule, pl_module.objective
        if not holds_sound(data.shown):
            return
        is_text = objective.target == "text"
        names = objective.spell(data.sample("validation", SHOWN).y) if is_text else data.shown.file
        play(trainer.logger.writer, "recordings", data.shown, names, trainer.global_step)


def holds_sound(rows: Any) -> bool:
    """Whether raw rows are recordings: a table with the column audio."""
    return isinstance(rows, pd.DataFrame) and "audio" in rows


def play(writer: Any, tag: str, sounds: Any, names: Sequence[str], step: int) -> None:
    """Players of the first few recordings of a table with the columns audio and rate, as loud as can be."""
    for number, (row, name) in enumerate(zip(sounds[:SHOWN].itertuples(), names), 1):
        sound = torch.from_numpy(row.audio)[None] / max(abs(row.audio).max(), 1e-6)
        writer.add_audio(f"{tag}/{number} {name[:NAME]}", sound, step, sample_rate=int(row.rate))
