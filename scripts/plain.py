"""Train with Hydra and Lightning's defaults, without warmstart. The baseline of bench_sweep.py.

    python scripts/plain.py -m 'seed=range(16)'

Prints the start and end of each job, in seconds of the system's monotonic clock.
"""

from __future__ import annotations

import time
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


class Model(pl.LightningModule):
    """A classifier of 8 x 8 digits, of the size of warmstart's `backbone=mlp`."""

    def __init__(self, lr: float):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10))
        self.accuracy, self.f1 = MulticlassAccuracy(10, average="micro"), MulticlassF1Score(10)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Cross-entropy."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], index: int, part: str = "val") -> None:
        """Loss, accuracy and F1."""
        outputs = self.net(batch[0])
        self.accuracy(outputs, batch[1])
        self.f1(outputs, batch[1])
        self.log(f"{part}/loss", nn.functional.cross_entropy(outputs, batch[1]))
        self.log_dict({f"{part}/accuracy": self.accuracy, f"{part}/f1": self.f1})

    def test_step(self, batch: list[Tensor], index: int) -> None:
        """The same on the test rows."""
        self.validation_step(batch, index, "test")

    def configure_optimizers(self) -> Any:
        """AdamW under half a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config: DictConfig) -> None:
    """Train, test the best checkpoint."""
    began = time.monotonic()
    pl.seed_everything(config.seed, verbose=False)
    x, y = load_digits(return_X_y=True)
    rest, test = train_test_split(range(len(x)), test_size=270, stratify=y, random_state=0)
    train, val = train_test_split(rest, test_size=270, stratify=y[rest], random_state=0)
    tensors = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    loaders = [
        DataLoader(TensorDataset(*(part[rows] for part in tensors)), size, shuffle=size == 64)
        for rows, size in ((train, 64), (val, 512), (test, 512))
    ]
    best = pl.callbacks.ModelCheckpoint(monitor="val/accuracy", mode="max", save_last=True)
    trainer = pl.Trainer(max_epochs=5, callbacks=[best], enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Model(0.001), loaders[0], loaders[1])
    trainer.test(dataloaders=loaders[2], ckpt_path="best", verbose=False)
    print(f"job {began} {time.monotonic()}", flush=True)


if __name__ == "__main__":
    main()
