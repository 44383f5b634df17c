"""LightningDataModules for pretraining and finetuning, whose rows are encoded once."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pandas.api.types import is_numeric_dtype
from torch import Tensor

from warmstart.core import screen
from warmstart.core.batch import Batch, Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.spec import Spec
from warmstart.data.duplicates.overlap import copies
from warmstart.data.loader import GatherLoader, Unlabelled, encode, held_out_rows, moments, take
from warmstart.data.splits import fold_of, labelled_subset, merged
from warmstart.data.storage.ragged import Packed, PackedRows, PaddedRows, Ragged, assign_blocks
from warmstart.distributed.processes import world

SHOWN = 4  # raw validation rows kept for visualization


class MemoryDataModule(pl.LightningDataModule):
    """Load a source, encode it with a preprocessor and return batches of encoded rows.

    Args:
        target: kind of target the objective needs; None for no targets.
        order_seed: seed of the order of the training rows.
        preprocessor: preprocessor of the pretraining; None to fit a new one on the training inputs.
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
        self.references: dict[str, Tensor] = {}

    @property
    def held_out_batch(self) -> int:
        """Number of rows per validation or test step."""
        most = self.preprocessor.held_out_batch
        return min(held_out_rows(most, *self.parts[name]) for name in ("validation", *self.test_parts))

    @abstractmethod
    def training_rows(self, splits: Splits) -> Rows:
        raise NotImplementedError

    def validation_rows(self, splits: Splits) -> Rows:
        return splits.validation

    @abstractmethod
    def fitting_rows(self, splits: Splits) -> Rows:
        raise NotImplementedError

    @property
    def subset(self) -> Any:
        """Settings that select the training rows; None if all rows are used."""
        return None

    @property
    def fold(self) -> Any:
        """Settings that select the validation rows; None for the validation split of the source."""
        return None

    def prepare(self, splits: Splits | None = None, like: MemoryDataModule | None = None) -> MemoryDataModule:
        """Read, check, split and encode the data.

        Args:
            like: module prepared from the same splits, whose equal parts are shared.

        Raises:
            UserError: the data is broken.
        """
        splits = splits or self.source.load(self.target)
        self.fingerprint = like.fingerprint if like else fingerprint(splits)
        own = self.source.preprocessor()
        if self.preprocessor is None:
            self.preprocessor = own
            self.preprocessor.fit(self.fitting_rows(splits).x)
        else:
            self.preprocessor = self.preprocessor.adapted(own)
        labels = splits.labels if self.target is not None else ()
        if self.target == "text":
            labels = self.preprocessor.fit_transcripts(splits.train.y)
        splits = grouped(splits, self.preprocessor)
        same_preprocessor = like is not None and like.preprocessor.state() == self.preprocessor.state()
        training, validation = self.training_rows(splits), self.validation_rows(splits)
        self.raw, self.raw_test = training.x, splits.test.x
        self.shown = validation.take(evenly(len(validation), SHOWN)).x
        chosen = {
            "train": (training, same_preprocessor and like.subset == self.subset),
            "validation": (validation, same_preprocessor and like.fold == self.fold),
            "test": (splits.test, same_preprocessor),
        }
        chosen |= {f"test_{name}": (rows, same_preprocessor) for name, rows in splits.shifts.items()}
        for name, (rows, is_shared) in chosen.items():
            self.parts[name] = like.parts[name] if is_shared else self.encode(rows)
        self.given = {name: rows for name, (rows, _) in chosen.items()}  # raw, for the search for copies
        train, held_out = self.parts["train"][0], self.parts["validation"][0]
        center, spread = moments(training.y) if self.target == "value" else ((), ())
        self.train_loader = GatherLoader(*self.parts["train"], self.batch_size, self.order_seed)
        self.spec = Spec(
            self.source.modality,
            tuple(train.shape[1:]),
            labels,
            center,
            spread,
            self.preprocessor.vocabulary,
            held_out.bytes_per_token if isinstance(held_out, PaddedRows) else 0.0,
            self.preprocessor.seconds,
        )
        return self

    def encode(self, rows: Rows) -> tuple[Any, Any]:
        """Return encoded inputs and targets for a loader."""
        return encode(self.preprocessor, rows.x, self.target, rows.y)

    def sample(self, part: str, count: int) -> Batch:
        """Return a batch of up to `count` evenly spaced rows of a part."""
        return self.pick(part, evenly(len(self.parts[part][0]), count))

    def pick(self, part: str, rows: np.ndarray | list[int]) -> Batch:
        """Return a batch of the rows of a part at these indices."""
        return take(*self.parts[part], torch.as_tensor(rows))

    def marked(self, count: int) -> list[str]:
        """Return up to `count` training rows as text, with their supervised parts marked; none for other targets."""
        x, y = self.parts["train"]
        if "marked" not in self.preprocessor.abilities or y is None:
            return []
        found = []
        for index in evenly(len(x), count):
            tokens, mask = x.padded([index])
            labels, _ = y.padded([index])
            valid = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask > 0
            rows = list(zip(tokens, labels, valid))  # several, if an example has several conversations
            rows = rows if x.ratings is None else rows[:1]
            found += [self.preprocessor.marked(row[keep].tolist(), own[keep].tolist()) for row, own, keep in rows]
        return found

    def set_references(self, references: Mapping[str, Tensor]) -> None:
        """Set `Batch.reference` of each row (N, ...), by part."""
        self.references = dict(references)
        self.train_loader.reference = self.references.get("train")

    @property
    def batch_tokens(self) -> float | None:
        """Mean number of positions of a training batch; None if examples have no tokens."""
        x = self.train_loader.x  # blocks, if rows are packed
        return self.batch_size * x.tokens / len(x) if isinstance(x, PaddedRows) else None

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows of each part."""
        return {name: len(x) for name, (x, _) in self.parts.items()}

    @property
    def test_parts(self) -> list[str]:
        """Names of the test split and of each shifted one, `test_<shift>`."""
        return [name for name in self.parts if name.split("_")[0] == "test"]

    def train_dataloader(self) -> GatherLoader:
        """Return the loader, reshuffled every epoch; with `overfit_batches`, all epochs are the same."""
        if self.trainer is not None and self.trainer.overfit_batches:
            self.train_loader.repeat = True
        return self.train_loader

    def state_dict(self) -> dict[str, int]:
        """Return epoch and position in the training rows."""
        return self.train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.train_loader.load_state_dict(state_dict)

    @property
    def divides_validation(self) -> bool:
        """Whether several processes have different batches of the validation rows; not if a limit is set."""
        limit, repeats = (
            (1.0, 0.0) if self.trainer is None else (self.trainer.limit_val_batches, self.trainer.overfit_batches)
        )
        is_complete = limit == 1.0 and not repeats
        return is_complete and len(self.parts["validation"][0]) > self.held_out_batch * (world() - 1) > 0

    def val_dataloader(self) -> GatherLoader:
        """Return the loader of the validation rows, of which a process has those of every n-th batch."""
        loader = self.held_out("validation")
        loader.is_divided = self.divides_validation
        return loader

    def test_dataloader(self) -> GatherLoader:
        return self.held_out("test")

    def held_out(self, part: str) -> GatherLoader:
        loader = GatherLoader(*self.parts[part], self.held_out_batch)
        loader.reference = self.references.get(part)
        return loader


def grouped(splits: Splits, preprocessor: Preprocessor) -> Splits:
    """Return splits whose rows have what the preprocessor uses of all rows of their cluster in the same split."""
    if "grouped" not in preprocessor.abilities:
        return splits
    names = [name for name in ("train", "validation", "test", "unlabelled") if getattr(splits, name) is not None]
    shifts = {name: preprocessor.grouped(rows) for name, rows in splits.shifts.items()}
    return replace(splits, **{name: preprocessor.grouped(getattr(splits, name)) for name in names}, shifts=shifts)


def evenly(rows: int, count: int) -> np.ndarray:
    """Return at most `count` evenly spaced row indices."""
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


class GenericDataModule(MemoryDataModule):
    """All training rows, labelled and unlabelled, for pretraining; targets are used by supervised objectives only.

    Args:
        pack: length of the blocks that variable-length rows are packed into; None to pad them instead.
        separate: whether to restrict attention to the same row of a block.
    """

    def __init__(self, *args: Any, pack: int | None = None, separate: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if separate and pack is None:
            raise UserError("data.separate=true separates packed rows: set data.pack too")
        self.pack, self.separate = pack, separate

    def prepare(self, splits: Splits | None = None, like: MemoryDataModule | None = None) -> MemoryDataModule:
        """Prepare as the base class does, and keep the classes of the source, if any, to evaluate features."""
        splits = splits or self.source.load(self.target)
        self.classes = {name: getattr(splits, name).classes for name in ("train", "validation")}
        return super().prepare(splits, like)

    def classed(self, part: str, count: int) -> Batch | None:
        """Return evenly spaced rows of a part with their classes; None if there are no classes."""
        y = self.classes[part]
        if y is None or self.pack is not None:
            return None
        rows = torch.linspace(0, len(y) - 1, min(count, len(y))).long()
        return take(self.parts[part][0], torch.from_numpy(y), rows)

    def set_targets(
        self, y: Mapping[str, Tensor], center: tuple[float, ...], spread: tuple[float, ...], labels: tuple[str, ...]
    ) -> None:
        """Set targets (N, D) by part, such as outputs of a teacher; see `Spec` for the other arguments."""
        self.parts |= {part: (self.parts[part][0], values) for part, values in y.items()}
        self.train_loader = GatherLoader(*self.parts["train"], self.batch_size, self.order_seed)
        self.spec = replace(self.spec, center=center, spread=spread, labels=labels)

    def encode(self, rows: Rows) -> tuple[Any, Any]:
        """Return encoded inputs, packed into blocks if `pack` is set, and targets.

        Raises:
            UserError: the rows cannot be packed.
        """
        if self.pack is None:
            return super().encode(rows)
        if "untruncated" not in self.preprocessor.abilities or self.target is not None:
            raise UserError("data.pack needs texts without targets: set data.pack=null")
        return Packed(self.preprocessor.untruncated(rows.x), self.pack, self.separate), None

    @property
    def held_out_batch(self) -> int:
        """The training batch size, because a contrastive loss depends on it."""
        return self.batch_size

    def training_rows(self, splits: Splits) -> Rows:
        """Return labelled rows and, without a target, unlabelled rows too."""
        if self.target is not None or splits.unlabelled is None or not len(splits.unlabelled):
            return splits.train
        return merged([replace(splits.train, y=None), splits.unlabelled])

    def fitting_rows(self, splits: Splits) -> Rows:
        """Return all training rows."""
        return self.training_rows(splits)


class TaskDataModule(MemoryDataModule):
    """Labelled rows for finetuning: all, or a nested, stratified subset, with an optional validation fold.

    Args:
        labels_per_class: number of rows of each class, or `<=N` for up to N.
        label_fraction: share of the rows of each class.
        subset_seed: seed of the subset; with the same seed, smaller subsets are part of larger ones.
        folds: number of folds of these rows, one of which replaces the validation split of the source.
        fold: index of the validation fold; from `folds` on, of a further repeat with another shuffle.
        fold_seed: seed of the folds.
        unlabelled_seed: seed of the order of the unlabelled rows; None to use labelled rows only.
        pack: whether to put several complete rows into one block of the context, without attention between them.
    """

    def __init__(
        self,
        *args: Any,
        labels_per_class: int | str | None = None,
        label_fraction: float | None = None,
        subset_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        fold_seed: int = 0,
        unlabelled_seed: int | None = None,
        pack: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.unlabelled_seed, self.pack = unlabelled_seed, pack
        self.budget = (subset_seed, labels_per_class, label_fraction)
        self.fold_key = None if folds is None else (fold_seed, folds, fold)

    @property
    def subset(self) -> Any:
        """Seeds, budget and fold; None if all labelled rows are used."""
        return None if self.budget[1:] == (None, None) and self.fold_key is None else (self.budget, self.fold_key)

    @property
    def fold(self) -> Any:
        """As `subset`, if validation uses a fold; else None."""
        return None if self.fold_key is None else self.subset

    def prepare(self, splits: Splits | None = None, like: MemoryDataModule | None = None) -> MemoryDataModule:
        """Prepare as the base class does, and add the unlabelled rows to the loader of the training rows."""
        splits = splits or self.source.load(self.target)
        super().prepare(splits, like)
        if self.pack:
            self.train_loader = self.packed_loader()
        if self.unlabelled_seed is not None:
            rows = self.unlabelled_rows(grouped(splits, self.preprocessor))
            self.parts["unlabelled"] = encode(self.preprocessor, rows.x, None)
            self.train_loader.unlabelled = Unlabelled(
                self.parts["unlabelled"][0], self.batch_size, self.unlabelled_seed
            )
        return self

    def packed_loader(self) -> GatherLoader:
        """Return a loader of blocks of training rows.

        Raises:
            UserError: the targets are not labels of tokens.
        """
        x, y = self.parts["train"]
        if not (isinstance(x, Ragged) and isinstance(y, Ragged)):
            raise UserError(
                "data.pack=true packs rows whose tokens have labels, as those of data=chat: set data.pack=false"
            )
        blocks = assign_blocks(x.lengths, x.context)
        return GatherLoader(PackedRows(x, blocks), PackedRows(y, blocks), self.batch_size, self.order_seed)

    def unlabelled_rows(self, splits: Splits) -> Rows:
        """Return the training rows outside the labelled subset, and the rows of the source without a target.

        Copies of validation and test rows are left out, and, where these have clusters of their own, their clusters.

        Raises:
            UserError: there are no such rows.
        """
        labelled = labelled_subset(splits.train.y, splits.labels, *self.budget)
        left = splits.train.take(np.setdiff1d(np.arange(len(splits.train)), labelled))
        held = [self.validation_rows(splits), splits.test, *splits.shifts.values()]
        parts = [replace(part, y=None) for part in (left, splits.unlabelled) if part is not None and len(part)]
        if splits.keeps_clusters:
            is_separate = self.fold_key is not None or set(splits.train.cluster).isdisjoint(held[0].cluster)
            names = [part.cluster for part in (held if is_separate else held[1:])]
            names = np.concatenate([names for names in names if names is not None])
            parts = [part if part.cluster is None else part.take(~np.isin(part.cluster, names)) for part in parts]
        rows = merged(parts) if parts else left
        if len(rows) and len(found := copies(rows, held, self.preprocessor)):
            screen.say(f"{len(found):,} unlabelled rows are copies of validation or test rows: they are not used")
            rows = rows.take(np.setdiff1d(np.arange(len(rows)), found))
        if not len(rows) and parts:
            raise UserError(
                "data.unlabelled=true: all rows without labels are copies of validation or test rows, or of their "
                "clusters, so none can be used: set data.unlabelled=false"
            )
        if not len(rows):
            raise UserError(
                f"data.unlabelled=true: all {len(splits.train):,} training rows are labelled, so none are left without "
                "labels: set data.labels_per_class or data.label_fraction, or data.unlabelled=false"
            )
        return rows

    def labelled_rows(self, splits: Splits) -> Rows:
        """Return the labelled subset, including the validation fold."""
        if self.budget[1:] == (None, None):
            return splits.train
        return splits.train.take(labelled_subset(splits.train.y, splits.labels, *self.budget))

    def training_rows(self, splits: Splits) -> Rows:
        """Return the labelled subset without the validation fold."""
        rows = self.labelled_rows(splits)
        return rows if self.fold_key is None else rows.take(self._fold_of(rows, splits)[0])

    def validation_rows(self, splits: Splits) -> Rows:
        """Return the validation fold, or the validation split of the source."""
        if self.fold_key is None:
            return splits.validation
        rows = self.labelled_rows(splits)
        return rows.take(self._fold_of(rows, splits)[1])

    def _fold_of(self, rows: Rows, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
        """Return the training and validation indices; folds keep clusters whole if the test split does."""
        return fold_of(rows, splits.labels, *self.fold_key, by_cluster=splits.keeps_clusters)

    def fitting_rows(self, splits: Splits) -> Rows:
        """Return all training rows, of which a preprocessor uses the inputs only."""
        return splits.train


def fingerprint(splits: Splits) -> str:
    """Return the SHA-256 of all values and clusters of all parts, which identifies the data of a run."""
    digest = hashlib.sha256()
    for rows in (splits.train, splits.validation, splits.test, splits.unlabelled):
        for values in () if rows is None else (rows.x, rows.y, rows.cluster):
            _update(digest, values)
    return digest.hexdigest()


def inputs_digest(rows: Rows) -> str:
    """Return the SHA-256 of all raw inputs, their shape, and the names of their columns."""
    digest = hashlib.sha256(f"{rows.x.shape} {list(rows.x) if rows.is_frame else rows.x.dtype}".encode())
    _update(digest, rows.x)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, values: Any) -> None:
    """Add the values of a table or an array to a hash; None adds nothing."""
    if isinstance(values, pd.DataFrame):
        hashable = values.apply(lambda column: column if is_numeric_dtype(column) else column.map(_hashable))
        values = pd.util.hash_pandas_object(hashable, index=False).to_numpy()
    if values is not None and values.dtype == object:
        digest.update(json.dumps(values.tolist()).encode())
    elif values is not None:
        digest.update(np.ascontiguousarray(values).data)


def _hashable(cell: Any) -> Any:
    """Convert a cell to a hashable object."""
    if isinstance(cell, np.ndarray):
        return cell.tobytes()
    return " ".join(cell) if isinstance(cell, list) else cell
