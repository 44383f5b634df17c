"""Text examples are logged at every validation, for the same rows, without effect on training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import TENSORBOARD
from torch import Tensor, nn
from torch.utils.data import DataLoader

from warmstart.core.batch import Batch
from warmstart.core.protocols import Objective, Preprocessor
from warmstart.training.logger import RunLogger
from warmstart.training.visualization.examples import Examples


class Letters(Preprocessor):
    """Numbers to letters."""

    abilities = frozenset({"decode"})

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(97 + number) for number in ids)


class Guess(Objective):
    """Says each row, and a place of it drawn at random."""

    abilities = frozenset({"examples"})

    def examples(self, backbone: nn.Module, batch: Batch, decode: Callable[[list[int]], str]) -> list[str]:
        assert not backbone.training
        backbone(batch.x)
        place = int(torch.randint(4, ()))
        return [f"{decode(row)} *{decode(row[place : place + 1])}*" for row in batch.x.tolist()]


class Caching(nn.Module):
    """An embedding under dropout that makes a table of positions the first time that it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dropout, self.positions = nn.Embedding(26, 2), nn.Dropout(0.5), None

    def forward(self, x: Tensor) -> Tensor:
        if self.positions is None:
            self.positions = torch.linspace(-1, 1, x.shape[1])[:, None]
        return self.dropout(self.embedding(x) * self.positions)


class Reader(pl.LightningModule):
    """Trains on the backbone's random outputs, and notes them."""

    def __init__(self, objective: object):
        super().__init__()
        self.backbone, self.objective, self.augment = Caching(), objective, Unchanged()
        self.losses: list[float] = []

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = self.backbone(batch.x).square().mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Unchanged:
    def scale(self, x: Tensor) -> Tensor:
        return x


class Rows(pl.LightningDataModule):
    """Eight rows of four letters, two a batch."""

    def __init__(self, preprocessor: object):
        super().__init__()
        self.preprocessor = preprocessor
        self.x = torch.arange(32).view(8, 4) % 26

    def sample(self, part: str, count: int) -> Batch:
        assert part == "validation"
        return Batch(self.x[:count])

    def train_dataloader(self) -> DataLoader:
        return DataLoader([Batch(rows) for rows in self.x.split(2)], batch_size=None)

    val_dataloader = train_dataloader


def fitted(folder: Path, preprocessor: object, objective: object) -> tuple[list[float], list[tuple[int, str]]]:
    torch.manual_seed(0)
    logger = RunLogger(folder, TENSORBOARD)
    settings = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=1, val_check_interval=1, accelerator="cpu", logger=logger, callbacks=[Examples()], **settings
    )
    module = Reader(objective)
    trainer.fit(module, datamodule=Rows(preprocessor))
    assert module.backbone.training
    logger.close()
    events = EventAccumulator(str(folder)).Reload()
    tag = "examples/text_summary"
    written = events.Tensors(tag) if tag in events.Tags()["tensors"] else []
    return module.losses, [(event.step, event.tensor_proto.string_val[0].decode()) for event in written]


def test_examples_are_logged_at_every_validation_without_effect_on_training(tmp_path: Path):
    losses, written = fitted(tmp_path / "with", Letters(), Guess())
    assert {step for step, _ in written} == {0, 1, 2, 3, 4}
    (text,) = {text for _, text in written}
    lines = text.split("\n\n")
    assert len(lines) == 4
    assert lines[0] in [f"abcd *{letter}*" for letter in "abcd"]
    assert lines[1].startswith("efgh *")
    assert fitted(tmp_path / "without", Letters(), Objective())[0] == losses


def test_other_data_and_objectives_have_none(tmp_path: Path):
    assert fitted(tmp_path / "images", Preprocessor(), Guess())[1] == []
    assert fitted(tmp_path / "silent", Letters(), Objective())[1] == []
