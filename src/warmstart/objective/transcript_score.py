"""How far transcripts are from what was said: word and character error rates, with the kinds of errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from rapidfuzz.distance import Levenshtein
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
    """Return the substitutions, deletions and insertions of a shortest way from what was said to what was found."""
    counts = Counter(edit.tag for edit in Levenshtein.editops(said, found))
    return counts["replace"], counts["delete"], counts["insert"]
