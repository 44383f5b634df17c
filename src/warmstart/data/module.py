"""The two LightningDataModules: generic data to pretrain on, task data to finetune on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from warmstart.contracts import Batch, Rows, Splits, UserError
from warmstart.data.loader import take
from warmstart.data.memory import MemoryDataModule
from warmstart.data.ragged import Packed
from warmstart.data.splits import fold_of, labelled_subset


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
        if not hasattr(self.preprocessor, "whole") or self.target is not None:
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
