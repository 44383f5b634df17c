"""Initial weights without training: pooled features, and outputs of their own head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Backbone, Objective, Preprocessor
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import MemoryDataModule
from warmstart.data.loader import take
from warmstart.data.storage.ragged import PaddedRows
from warmstart.data.transforms.augment import Augment
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import TUNED
from warmstart.training import components
from warmstart.training.compatibility import abilities_of
from warmstart.training.evaluation import evaluating
from warmstart.training.start import build_objective, given_preprocessor, listed, load_head, load_start, shuffled
from warmstart.training.visualization.features import pooled

# Limit of memory: positions of a batch of variable-length rows, with padding. More are no faster on one core.
POSITIONS = {"cpu": 2**11, "cuda": 2**16}


class Frozen(nn.Module):
    """A backbone that is not trained, and an objective with its head if its outputs are needed.

    Args:
        backbone: with its weights.
        objective: with its head; None if only features are needed.
        preprocessor: scales encoded rows.
    """

    def __init__(self, backbone: Backbone, objective: Objective | None, preprocessor: Preprocessor):
        super().__init__()
        self.backbone, self.objective, self.augment = backbone, objective, Augment(preprocessor)
        self.batch_size = preprocessor.held_out_batch

    def features(self, x: Any) -> np.ndarray:
        """Return the pooled features of encoded rows (N, D)."""
        return self._map(x, self._features)

    def outputs(self, x: Any, y: Any = None) -> np.ndarray:
        """Return the outputs of the head for encoded rows (N, C), which may depend on their encoded targets."""
        return self._map(x, self._outputs, y)

    def batches(self, x: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield row numbers (B,), and the outputs of the head, or the features if there is none, of these rows (B, D).

        Variable-length rows are sorted by length, so that there is little padding, and batches have a limited size.
        """
        function = self._features if self.objective is None else self._outputs
        device = next(self.parameters()).device
        for rows in by_length(x, device, self.batch_size):
            with evaluating(self):
                yield rows, function(take(x, None, rows).to(device))

    def token_batches(self, x: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield row numbers (B,) of rows of tokens, and their pooled features, then those of each token (B, 1 + T, D).

        T is the length of the longest row of the batch.
        """
        device = next(self.parameters()).device
        for rows in by_length(x, device, self.batch_size):
            batch = take(x, None, rows).to(device)
            with evaluating(self):
                found = self.backbone(self.augment.scale(batch.x), batch.mask)
                yield rows, torch.cat([found.pooled[:, None], found.tokens], 1).float().cpu()

    def _features(self, batch: Batch) -> Tensor:
        return pooled(self, batch)

    def _outputs(self, batch: Batch) -> Tensor:
        scaled = Batch(self.augment.scale(batch.x), batch.y, batch.mask, rating=batch.rating)
        return self.objective.predict(self.backbone, scaled).cpu()

    def _map(self, x: Any, function: Callable[[Batch], Tensor], y: Any = None) -> np.ndarray:
        device, order, found = next(self.parameters()).device, [], []
        with evaluating(self):
            for rows in by_length(x, device, self.batch_size):
                found.append(function(take(x, y, rows).to(device)))
                order.append(rows)
        return torch.cat(found)[torch.cat(order).argsort()].numpy()


def by_length(x: Any, device: torch.device, batch_size: int) -> Iterator[Tensor]:
    """Yield the row numbers of batches of encoded rows (N, ...); of variable-length rows, longest rows first.

    Args:
        device: limits the number of positions of a batch.
        batch_size: maximum number of rows of a batch.
    """
    if not isinstance(x, PaddedRows) or x.lengths is None:
        yield from torch.arange(len(x)).split(batch_size)
        return
    order, left = np.argsort(x.lengths, kind="stable"), len(x)
    most = POSITIONS[device.type]
    while left:
        size = min(batch_size, left, max(1, most // max(1, int(x.lengths[order[left - 1]]))))
        left -= size
        yield torch.from_numpy(order[left : left + size])


def load_frozen(
    config: DictConfig,
    start: SavedModel | None,
    data: MemoryDataModule,
    has_head: bool,
    words: tuple[str, ...] | None = None,
) -> Frozen:
    """Return the model with the initial weights `start`, or with random weights if it is None.

    Args:
        config: config of a baseline with `init` and `trainer`.
        data: prepared data.
        has_head: whether to load the head too.
        words: the words of the classes, if a language model predicts them (`label_words`).

    Raises:
        UserError: the head is not for the labels of the data.
    """
    backbone = components.build_seeded(config.backbone, config.seed, "backbone", spec=data.spec)
    if start is not None:
        if Init.parse(config.init).shuffled:
            start = shuffled(start, derive_seed(config.seed, "shuffle"))
        load_start(backbone, start)
    objective = None
    if words is not None:
        kind = get_object(config.objective._target_).prompted
        objective = kind(backbone=backbone, numbers=data.preprocessor.label_numbers(words))
        if (reason := unloaded_head(objective, start)) is not None:
            raise UserError(f"init={config.init}: {reason}")
    elif has_head:
        objective = build_objective(config, backbone, data)
        reason = without_head(start, objective, data.spec.labels) or unloaded_head(objective, start)
        if reason is not None:
            raise UserError(f"init={config.init}: {reason}")
    return Frozen(backbone, objective, data.preprocessor).to(device_of(config))


def load_teacher(
    config: DictConfig, start: SavedModel, kind: Any, preprocessor: Preprocessor, shape: tuple[int, ...]
) -> Frozen:
    """Return a teacher with its weights.

    Args:
        config: config of the pretraining of its student.
        start: the saved teacher.
        kind: the class of objective with whose head outputs are computed, or `features` or `tokens`.
        preprocessor: that of the teacher.
        shape: shape of an encoded row.

    Raises:
        UserError: the weights or the head do not fit.
    """
    spec = replace(start.spec, shape=shape)
    backbone = components.build(OmegaConf.create(start.card["backbone"]), spec=spec)
    load_start(backbone, start)
    objective = None
    if not isinstance(kind, str):
        objective = kind(backbone=backbone, spec=spec, loss=kind.default_loss)
        if (reason := unloaded_head(objective, start)) is not None:
            raise UserError(reason)
    return Frozen(backbone, objective, preprocessor).to(device_of(config))


def unloaded_head(objective: Objective, start: SavedModel) -> str | None:
    """Load a saved head; return why it cannot be loaded, None if it was."""
    is_loaded = load_head(objective, start, start.spec.labels) in ("loaded", "tied")
    return None if is_loaded else f"the head of {start.name} has another form"


def label_words(
    config: DictConfig, start: SavedModel | None, labels: tuple[str, ...], has_examples: bool
) -> tuple[str, ...] | None:
    """Return the words by which a language model predicts the classes: their names, unless data.label_words has others.

    None if the initial weights have a head for these labels, which is used without examples, or the targets are no
    classes.

    Raises:
        UserError: data.label_words names another class.
    """
    objective = get_object(config.objective._target_)
    if objective.prompted is None or not (has_examples or without_head(start, objective, labels)):
        return None
    given = {str(label): str(word) for label, word in (config.data.get("label_words") or {}).items()}
    if (other := next((label for label in given if label not in labels), None)) is not None:
        raise UserError(f"data.label_words: there is no class {other}; there are: {listed(labels)}")
    return tuple(given.get(label, label) for label in labels)


def without_words(
    config: DictConfig, start: SavedModel | None, labels: tuple[str, ...], words: tuple[str, ...]
) -> str | None:
    """Return why initial weights cannot predict the classes `labels` by these words; None if they can.

    Raises:
        UserError: data.label_words has a word that is no single token.
    """
    objective = get_object(config.objective._target_)
    if start is None:
        return "random weights have no trained head"
    preprocessor = given_preprocessor(config, start)
    if not objective.prompted.needs <= abilities_of(config.backbone) or "label_words" not in preprocessor.abilities:
        return without_head(start, objective, labels) or f"{start.name} is no causal language model"
    try:
        numbers = preprocessor.label_numbers(words)
    except UserError as error:
        if config.data.get("label_words"):
            raise
        return str(error)
    backbone = components.build(config.backbone, spec=start.spec)
    prompted = objective.prompted(backbone=backbone, numbers=numbers)
    own, saved = ({name: value.shape for name, value in head.items()} for head in (prompted.state_dict(), start.head))
    if (own and own != saved) or start.card.get("task", prompted.task) != prompted.task:
        return f"{start.name} has no head for these labels, and none of a causal language model"
    return None


def device_of(config: DictConfig) -> str:
    """Return the device of the forward passes."""
    return "cpu" if config.trainer.accelerator == "cpu" or not torch.cuda.is_available() else "cuda"


def without_head(
    start: SavedModel | None, objective: Objective | type[Objective], labels: tuple[str, ...]
) -> str | None:
    """Return why initial weights have no head for an objective and these labels; None if they have one."""
    task = objective.task
    if start is None:
        return "random weights have no trained head"
    if objective.keeps_head and start.card["stage"] not in TUNED and start.card.get("task") is None:
        return None  # loading it finds out whether it has this form
    if start.card["stage"] not in TUNED and start.card.get("task") is None:
        return f"{start.name} has no head of a task"
    has_none = (
        not start.head and not objective.keeps_head
    )  # a head that is kept may be tied, which loading it finds out
    if start.card.get("task", task) != task or has_none:
        return f"the head of {start.name} is for another task"
    if start.spec.labels != labels:
        return f"the head of {start.name} is for other labels ({listed(start.spec.labels)}; here {listed(labels)})"
    return None
