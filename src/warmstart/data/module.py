"""The two LightningDataModules: generic data to pretrain on, task data to finetune on."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor

from warmstart.contracts import Preprocessor, Rows, Source, Spec, Splits
from warmstart.data.loader import GatherLoader
from warmstart.data.splits import labelled_subset

EVALUATION_BATCH = 512


class MemoryDataModule(pl.LightningDataModule):
    """Loads a source, encodes it with the preprocessor (fitted here unless one is given), and serves raw batches.

    Args:
        source: the data set.
        target: the kind of target the objective needs, or None for no targets at all.
        batch_size: rows per training step.
        order_seed: fixes the order of the training rows.
        preprocessor: the one that the pretraining used; None fits a new one on the training inputs.
    """

    def __init__(
        self,
        source: Source,
        target: str | None,
        batch_size: int,
        order_seed: int,
        preprocessor: Preprocessor | None = None,
    ):
        super().__init__()
        self.source, self.target = source, target
        self.batch_size, self.order_seed = batch_size, order_seed
        self.preprocessor = preprocessor
        self.parts: dict[str, tuple[Tensor, Tensor | None]] = {}

    @property
    def held_out_batch(self) -> int:
        """Rows per validation or test step."""
        return EVALUATION_BATCH

    @abstractmethod
    def training_rows(self, splits: Splits) -> Rows:
        """The rows to train on."""

    @abstractmethod
    def fitting_rows(self, splits: Splits) -> Rows:
        """The rows to fit a new preprocessor on."""

    @property
    def subset(self) -> Any:
        """What chooses the training rows; None where all of them are taken."""
        return None

    def prepare(self, splits: Splits | None = None, like: MemoryDataModule | None = None) -> MemoryDataModule:
        """Read, check, split and encode everything; raise UserError where the data is broken.

        Args:
            splits: what the source loads, where it is loaded already.
            like: a module prepared from these splits; what is the same for both is shared, not made again.
        """
        splits = splits or self.source.load(self.target)
        self.fingerprint = like.fingerprint if like else fingerprint(splits)
        if self.preprocessor is None:
            self.preprocessor = self.source.preprocessor()
            self.preprocessor.fit(self.fitting_rows(splits).x)
        is_alike = like is not None and like.preprocessor.state() == self.preprocessor.state()
        training = self.training_rows(splits)
        chosen = {
            "train": training,
            "validation": splits.validation,
            "test": splits.test,
        }
        for name, rows in chosen.items():
            if is_alike and (name != "train" or like.subset == self.subset):
                self.parts[name] = like.parts[name]
                continue
            y = None if self.target is None else torch.from_numpy(rows.y)
            self.parts[name] = (self.preprocessor.encode(rows.x), y)
        shape = tuple(self.parts["train"][0].shape[1:])
        labels = splits.labels if self.target is not None else ()
        center = spread = ()
        if self.target == "value":
            y = training.y.astype(np.float64)
            center, spread = tuple(y.mean(0).tolist()), tuple(np.where(y.std(0) > 0, y.std(0), 1.0).tolist())
        self.train_loader = GatherLoader(*self.parts["train"], self.batch_size, self.order_seed)
        self.spec = Spec(self.source.modality, shape, labels, center, spread)
        return self

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part has."""
        return {name: len(x) for name, (x, _) in self.parts.items()}

    def train_dataloader(self) -> GatherLoader:
        """Shuffled anew every epoch; always the same batches when overfitting on purpose."""
        if self.trainer is not None and self.trainer.overfit_batches:
            self.train_loader.repeat = True
        return self.train_loader

    def state_dict(self) -> dict[str, int]:
        """The place in the training rows, for the checkpoint."""
        return self.train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from a checkpoint's place in the training rows."""
        self.train_loader.load_state_dict(state_dict)

    def val_dataloader(self) -> GatherLoader:
        """In order."""
        return GatherLoader(*self.parts["validation"], self.held_out_batch)

    def test_dataloader(self) -> GatherLoader:
        """In order."""
        return GatherLoader(*self.parts["test"], self.held_out_batch)


class GenericDataModule(MemoryDataModule):
    """All training rows, labelled or not; no target leaves it unless the objective is itself supervised."""

    @property
    def held_out_batch(self) -> int:
        """That of training, since a contrastive loss depends on how many examples it tells apart."""
        return self.batch_size

    def training_rows(self, splits: Splits) -> Rows:
        """Labelled and unlabelled rows together when targets do not matter."""
        if self.target is not None or splits.unlabelled is None or not len(splits.unlabelled):
            return splits.train
        both = [splits.train.x, splits.unlabelled.x]
        return Rows(pd.concat(both) if isinstance(both[0], pd.DataFrame) else np.concatenate(both))

    def fitting_rows(self, splits: Splits) -> Rows:
        """The preprocessor sees all that is trained on."""
        return self.training_rows(splits)


class TaskDataModule(MemoryDataModule):
    """Labelled rows, all of them or a nested, stratified subset.

    Args:
        labels_per_class: this many rows of each class.
        label_fraction: this share of the rows of each class.
        subset_seed: fixes the subset; with one seed, a smaller budget is part of every larger one.
    """

    def __init__(
        self,
        *args: Any,
        labels_per_class: int | None = None,
        label_fraction: float | None = None,
        subset_seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.budget = (subset_seed, labels_per_class, label_fraction)

    @property
    def subset(self) -> Any:
        """Seed and budget."""
        return None if self.budget[1:] == (None, None) else self.budget

    def training_rows(self, splits: Splits) -> Rows:
        """The labelled subset."""
        if self.subset is None:
            return splits.train
        return splits.train.take(labelled_subset(splits.train.y, splits.labels, *self.budget))

    def fitting_rows(self, splits: Splits) -> Rows:
        """A new preprocessor sees the inputs of all training rows, labelled or not."""
        return splits.train


def fingerprint(splits: Splits) -> str:
    """SHA-256 over every value of every part, so that two runs can be told to have seen the same data."""
    digest = hashlib.sha256()
    for rows in (splits.train, splits.validation, splits.test, splits.unlabelled):
        for values in () if rows is None else (rows.x, rows.y):
            if isinstance(values, pd.DataFrame):
                values = pd.util.hash_pandas_object(values, index=False).to_numpy()
            if values is not None:
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
