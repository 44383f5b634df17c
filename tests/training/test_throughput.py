"""Tokens per second, without padding and validation; not logged for data without tokens."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import TENSORBOARD
from torch import Tensor, nn
from torch.utils.data import DataLoader

from warmstart.core.batch import Batch
from warmstart.core.spec import Spec, Vocabulary
from warmstart.training.callbacks.step_time import StepTime, StepTimer
from warmstart.training.callbacks.throughput import Throughput, valid_positions
from warmstart.training.logger import RunLogger

PAUSE = 0.02


class Sleepy(pl.LightningModule):
    """Takes a known time for each training step, and a longer one for validation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        time.sleep(PAUSE)
        return self.layer(batch.mask.float().mean()[None]).sum()

    def validation_step(self, batch: Batch, index: int) -> None:
        time.sleep(10 * PAUSE)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Blocks(pl.LightningDataModule):
    """Twenty batches of two rows, five of the eight positions of each pair valid."""

    def __init__(self, vocabulary: Vocabulary | None):
        super().__init__()
        self.spec = Spec("text", (4,), vocabulary=vocabulary)
        mask = torch.tensor([[1, 1, 2, 0], [1, 1, 0, 0]])
        self.batches = [Batch(torch.ones(2, 4, dtype=torch.int64), None, mask) for _ in range(20)]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.batches[:1], batch_size=None)


def logged(folder: Path, vocabulary: Vocabulary | None, *more: pl.Callback) -> list[tuple[int, float]]:
    logger = RunLogger(folder, TENSORBOARD)
    trainer = pl.Trainer(
        max_epochs=1,
        val_check_interval=4,
        accelerator="cpu",
        logger=logger,
        callbacks=[Throughput(5), *more],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Sleepy(), datamodule=Blocks(vocabulary))
    logger.close()
    assert "tokens_per_second" not in (folder / "metrics.csv").read_text()
    events = EventAccumulator(str(folder)).Reload()
    return [(e.step, e.value) for e in events.Scalars("tokens_per_second")] if events.Tags()["scalars"] else []


def test_it_is_the_rate_of_training(tmp_path: Path):
    times = StepTime()
    found = logged(tmp_path, Vocabulary(10, 0), times)
    assert [step for step, _ in found] == [5, 10, 15, 20]
    assert PAUSE <= times.timer.cost()["step_seconds"] < 5 * PAUSE  # a validation takes ten times as long
    assert times.timer.cost(models=4)["step_seconds"] < 2 * PAUSE
    for _, rate in found:
        assert 0.3 * 5 / PAUSE < rate <= 5 / PAUSE  # with validation it would be a fifth or less


def test_the_first_steps_are_not_timed():
    timer = StepTimer()
    for step in range(19):
        timer.start()
        timer.since -= 100 if step < 10 else 1
        timer.stop()
    assert timer.cost() == {}  # too few
    timer.start()
    timer.stop()
    assert 1 <= timer.cost()["step_seconds"] < 2


def test_other_data_has_none(tmp_path: Path):
    assert logged(tmp_path, None) == []


def test_without_a_mask_all_positions_are_valid():
    batch = SimpleNamespace(x=torch.ones(3, 5), mask=None)
    assert valid_positions(batch) == 15
