"""Precision, recall and F1 of entities: an entity is correct if its type, its first and its last word are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from warmstart.core.tags import OUTSIDE, entities

COUNTS = ("correct", "predicted", "true")


def types_of(labels: Collection[str]) -> list[str]:
    """Return the sorted types of the entities that labels mark."""
    return sorted({label[2:] for label in labels if label != OUTSIDE})


def count(predicted: Sequence[str], true: Sequence[str], types: Sequence[str]) -> np.ndarray:
    """Return the numbers of correct, predicted and true entities of a sentence by type (types, 3)."""
    index = {name: number for number, name in enumerate(types)}
    found, known = set(entities(predicted)), set(entities(true))
    counts = np.zeros((len(types), len(COUNTS)))
    for column, group in enumerate((found & known, found, known)):
        np.add.at(counts[:, column], [index[entity.type] for entity in group], 1)
    return counts


def precision_recall_f1(counts: Tensor) -> Tensor:
    """Return precision, recall and F1 (..., 3) of counts (..., 3); 0 for a quotient of zeros, as in seqeval."""
    correct, predicted, true = counts.unbind(-1)
    return torch.stack(
        [correct / predicted.clamp(min=1), correct / true.clamp(min=1), 2 * correct / (predicted + true).clamp(min=1)],
        -1,
    )


class EntityScores(Metric):
    """Micro-averaged precision, recall and F1 over all entities, and the same by type.

    Args:
        to_counts: returns the counts of each sentence (B, types, 3) for outputs and targets.
        types: names of the types.
    """

    full_state_update = False

    def __init__(self, to_counts: Callable[[Tensor, Tensor], Tensor], types: Sequence[str]):
        super().__init__()
        self.to_counts, self.types = to_counts, types
        self.add_state("counts", torch.zeros(len(types), len(COUNTS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add logits (B, T, C) and class indices (B, T)."""
        self.counts += self.to_counts(outputs, y).sum(0).to(self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        names = ("precision", "recall", "f1")
        found = dict(zip(names, precision_recall_f1(self.counts.sum(0))))
        for kind, values in zip(self.types, precision_recall_f1(self.counts)):
            found |= {f"{name}_{kind}": value for name, value in zip(names, values)}
        return found
