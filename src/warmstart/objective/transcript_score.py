"""How far transcripts are from what was said: word and character error rates, with the kinds of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

KINDS = ("substitutions", "deletions", "insertions")


class TranscriptErrors(Metric):
    """Word error rate, its parts by kind of error, and character error rate, over all utterances.

    Args:
        read: turns a batch's outputs into texts.
        spell: turns a batch's targets into texts.

    `compared` holds the batch that came last: of each utterance the wrong words, what was said and what was understood.
    """

    full_state_update = False

    def __init__(self, read: Callable[[Tensor], list[str]], spell: Callable[[Tensor], list[str]]):
        super().__init__()
        self.read, self.spell = read, spell
        self.compared: list[tuple[int, str, str]] = []
        self.add_state("edits", torch.zeros(len(KINDS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sizes", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")  # words, letters, wrong ones

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count a batch."""
        self.compared = []
        for said, found in zip(self.spell(y), self.read(outputs)):
            kinds = edits(said.split(), found.split())
            self.compared.append((sum(kinds), said, found))
            self.edits += torch.tensor(kinds, dtype=torch.float64)
            letters = sum(edits(said, found))
            self.sizes += torch.tensor([len(said.split()), len(said), letters], dtype=torch.float64)

    def compute(self) -> dict[str, Tensor]:
        """Errors per word that was said, and per character."""
        words, letters, wrong = self.sizes
        parts = dict(zip(KINDS, self.edits / words))
        return {"wer": self.edits.sum() / words, "cer": wrong / letters, **parts}


def edits(said: Sequence[str], found: Sequence[str]) -> tuple[int, int, int]:
    """Substitutions, deletions and insertions of the shortest way from what was said to what was found.

    By the algorithm of Wagner and Fischer (1974); of ways of equal length the one with most substitutions.
    """
    cost = np.zeros((len(said) + 1, len(found) + 1), dtype=np.int64)
    cost[:, 0], cost[0] = np.arange(len(said) + 1), np.arange(len(found) + 1)
    for i, word in enumerate(said, 1):
        for j, other in enumerate(found, 1):
            cost[i, j] = min(cost[i - 1, j - 1] + (word != other), cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    i, j, kinds = len(said), len(found), [0, 0, 0]
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (said[i - 1] != found[j - 1]):
            kinds[0] += said[i - 1] != found[j - 1]
            i, j = i - 1, j - 1
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            kinds[1], i = kinds[1] + 1, i - 1
        else:
            kinds[2], j = kinds[2] + 1, j - 1
    return tuple(kinds)
