"""Rows of a source in memory or on the disk, encoded once, as LightningDataModules for pretraining and finetuning."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pandas.api.types import is_numeric_dtype
from torch import Tensor

from warmstart.core.batch import Batch, Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.spec import Spec
from warmstart.data.encoding import encode, moments
from warmstart.data.loader import GatherLoader, take
from warmstart.data.splits import fold_of, labelled_subset
from warmstart.data.storage.ragged import Packed, PaddedRows

SHOWN = 4  # raw validation rows that are kept to be looked at


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
        return self.preprocessor.held_out_batch

    @abstractmethod
    def training_rows(self, splits: Splits) -> Rows:
        """The rows to train on."""

    def validation_rows(self, splits: Splits) -> Rows:
        """The rows to validate on: the source's own."""
        return splits.validation

    @abstractmethod
    def fitting_rows(self, splits: Splits) -> Rows:
        """The rows to fit a new preprocessor on."""

    @property
    def subset(self) -> Any:
        """What chooses the training rows; None where all of them are taken."""
        return None

    @property
    def fold(self) -> Any:
        """What chooses the validation rows; None where they are the source's own."""
        return None

    def prepare(self, splits: Splits | None = None, like: MemoryDataModule | None = None) -> MemoryDataModule:
        """Read, check, split and encode everything; raise UserError where the data is broken.

        Args:
            splits: what the source loads, where it is loaded already.
            like: a module prepared from these splits; what is the same for both is shared, not made again.
        """
        splits = splits or self.source.load(self.target)
        self.fingerprint = like.fingerprint if like else fingerprint(splits)
        own = self.source.preprocessor()
        if self.preprocessor is None:
            self.preprocessor = own
            self.preprocessor.fit(self.fitting_rows(splits).x)
        else:
            self.preprocessor = self.preprocessor.adapted(own)
        is_alike = like is not None and like.preprocessor.state() == self.preprocessor.state()
        training, validation = self.training_rows(splits), self.validation_rows(splits)
        self.raw, self.raw_test = training.x, splits.test.x
        self.shown = validation.take(evenly(len(validation), SHOWN)).x
        chosen = {
            "train": (training, is_alike and like.subset == self.subset),
            "validation": (validation, is_alike and like.fold == self.fold),
            "test": (splits.test, is_alike),
        }
        chosen |= {f"test_{name}": (rows, is_alike) for name, rows in splits.shifts.items()}
        for name, (rows, is_shared) in chosen.items():
            self.parts[name] = like.parts[name] if is_shared else self.encode(rows)
        self.given = {name: rows for name, (rows, _) in chosen.items()}  # raw, to be searched for copies
        train, held_out = self.parts["train"][0], self.parts["validation"][0]
        center, spread = moments(training.y) if self.target == "value" else ((), ())
        self.train_loader = GatherLoader(*self.parts["train"], self.batch_size, self.order_seed)
        self.spec = Spec(
            self.source.modality,
            tuple(train.shape[1:]),
            splits.labels if self.target is not None else (),
            center,
            spread,
            self.preprocessor.vocabulary,
            held_out.bytes_per_token if isinstance(held_out, PaddedRows) else 0.0,
            self.preprocessor.seconds,
        )
        return self

    def encode(self, rows: Rows) -> tuple[Any, Any]:
        """Inputs and targets as a loader takes them."""
        return encode(self.preprocessor, rows.x, self.target, rows.y)

    def sample(self, part: str, count: int) -> Batch:
        """Raw rows of a part, spread evenly over it."""
        return self.pick(part, evenly(len(self.parts[part][0]), count))

    def pick(self, part: str, rows: np.ndarray | list[int]) -> Batch:
        """Raw rows of a part, by number."""
        return take(*self.parts[part], torch.as_tensor(rows))

    @property
    def batch_tokens(self) -> float | None:
        """Positions of a training batch, on average; None where examples are not made of tokens."""
        x = self.parts["train"][0]
        return self.batch_size * x.tokens / len(x) if isinstance(x, PaddedRows) else None

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part has."""
        return {name: len(x) for name, (x, _) in self.parts.items()}

    @property
    def test_parts(self) -> list[str]:
        """The test split, and then each shifted one, `test_<shift>`."""
        return [name for name in self.parts if name.split("_")[0] == "test"]

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
        return self.held_out("validation")

    def test_dataloader(self) -> GatherLoader:
        """In order, the test split alone."""
        return self.held_out("test")

    def held_out(self, part: str) -> GatherLoader:
        """A part's rows in order."""
        return GatherLoader(*self.parts[part], self.held_out_batch)


def evenly(rows: int, count: int) -> np.ndarray:
    """Numbers of at most `count` rows, evenly over all."""
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


class GenericDataModule(MemoryDataModule):
    """All training rows, labelled or not; no target is trained on unless the objective is itself supervised.

    Args:
        pack: positions of a block that rows of different lengths are packed into; None pads them instead.
        separate: keep attention inside each row of a block.
    """

    def __init__(self, *args: Any, pack: int | None = None, separate: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if separate and pack is None:
            raise UserError("data.separate=true keeps packed rows apart: set data.pack too")
        self.pack, self.separate = pack, separate

    def prepare(self, splits: Splits | None = None, like: MemoryDataModule | None = None) -> MemoryDataModule:
        """As above; classes that the source gives unasked are kept aside, to judge features by."""
        splits = splits or self.source.load(self.target)
        self.classes = {name: getattr(splits, name).classes for name in ("train", "validation")}
        return super().prepare(splits, like)

    def classed(self, part: str, count: int) -> Batch | None:
        """Raw rows of training or validation that have a class, with it, spread evenly; None where none has."""
        y = self.classes[part]
        if y is None or self.pack is not None:
            return None
        rows = torch.linspace(0, len(y) - 1, min(count, len(y))).long()
        return take(self.parts[part][0], torch.from_numpy(y), rows)

    def encode(self, rows: Rows) -> tuple[Any, Any]:
        """Inputs, packed into blocks where asked, and targets.

        Raises:
            UserError: rows that cannot be packed.
        """
        if self.pack is None:
            return super().encode(rows)
        if "whole" not in self.preprocessor.abilities or self.target is not None:
            raise UserError("data.pack puts rows end to end, which these cannot be: set data.pack=null")
        return Packed(self.preprocessor.whole(rows.x), self.pack, self.separate), None

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
    """Labelled rows, all of them or a nested, stratified subset; a fold of them validates where that is asked for.

    Args:
        labels_per_class: this many rows of each class.
        label_fraction: this share of the rows of each class.
        subset_seed: fixes the subset; with one seed, a smaller budget is part of every larger one.
        folds: cut these rows into so many parts, and validate on one of them instead of the source's own.
        fold: which part; from `folds` on, of a further repeat that is cut anew.
        fold_seed: fixes the parts.
    """

    def __init__(
        self,
        *args: Any,
        labels_per_class: int | None = None,
        label_fraction: float | None = None,
        subset_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        fold_seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.budget = (subset_seed, labels_per_class, label_fraction)
        self.cut = None if folds is None else (fold_seed, folds, fold)

    @property
    def subset(self) -> Any:
        """Seeds, budget and fold."""
        return None if self.budget[1:] == (None, None) and self.cut is None else (self.budget, self.cut)

    @property
    def fold(self) -> Any:
        """The same, where it is a fold of the labelled rows that validates."""
        return None if self.cut is None else self.subset

    def labelled_rows(self, splits: Splits) -> Rows:
        """The labelled subset, before a fold is taken out."""
        if self.budget[1:] == (None, None):
            return splits.train
        return splits.train.take(labelled_subset(splits.train.y, splits.labels, *self.budget))

    def training_rows(self, splits: Splits) -> Rows:
        """The labelled subset, without the fold that validates."""
        rows = self.labelled_rows(splits)
        return rows if self.cut is None else rows.take(fold_of(rows, splits.labels, *self.cut)[0])

    def validation_rows(self, splits: Splits) -> Rows:
        """The fold, or the source's own rows."""
        if self.cut is None:
            return splits.validation
        rows = self.labelled_rows(splits)
        return rows.take(fold_of(rows, splits.labels, *self.cut)[1])

    def fitting_rows(self, splits: Splits) -> Rows:
        """A new preprocessor sees the inputs of all training rows, labelled or not."""
        return splits.train


def fingerprint(splits: Splits) -> str:
    """SHA-256 over every value of every part, so that two runs can be told to have seen the same data."""
    digest = hashlib.sha256()
    for rows in (splits.train, splits.validation, splits.test, splits.unlabelled):
        for values in () if rows is None else (rows.x, rows.y):
            if isinstance(values, pd.DataFrame):
                plain = values.apply(lambda column: column if is_numeric_dtype(column) else column.map(_hashable))
                values = pd.util.hash_pandas_object(plain, index=False).to_numpy()
            if values is not None and values.dtype == object:
                digest.update(json.dumps(values.tolist()).encode())
            elif values is not None:
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _hashable(cell: Any) -> Any:
    """A cell as pandas can hash it."""
    if isinstance(cell, np.ndarray):
        return cell.tobytes()
    return " ".join(cell) if isinstance(cell, list) else cell
