"""A language model of labels: how probable each is after the few before it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.contracts import UserError

MOST = 2**24  # numbers in a table


class NGram(nn.Module):
    """Interpolated n-grams with the smoothing of Witten and Bell (1991), as in Chen and Goodman (1999).

    A text starts after a boundary and ends with one, whose number is C. States are the S contexts that occur in the
    texts; the first is the empty one. `logs` (S, C + 1) are the log-probabilities of what comes next in each, and
    `following` (S, C + 1) the state after it: that of the longest context that occurs.

    Args:
        order: labels of a context, plus one.
        size: how many labels there are, C.
    """

    def __init__(self, order: int, size: int):
        super().__init__()
        self.order, self.boundary = order, size
        self.register_buffer("logs", torch.empty(0, size + 1))
        self.register_buffer("following", torch.empty(0, size + 1, dtype=torch.int32))
        self.register_load_state_dict_pre_hook(make_room)

    def fit(self, y: Tensor) -> None:
        """Count the labels (N, L), -1 beyond the end.

        Raises:
            UserError: the texts are too short for this order, or have too many contexts.
        """
        texts = [[label for label in row if label >= 0] for row in y.tolist()]
        longest = max(map(len, texts), default=0)
        if self.order > longest + 1:
            raise UserError(
                f"objective.ngram={self.order}: the longest training text has {longest} labels; "
                f"give at most {longest + 1}"
            )
        before = self.order - 1
        grams: Counter[tuple[int, ...]] = Counter()
        for text in texts:
            padded = [self.boundary] * before + text + [self.boundary]
            grams.update(zip(*(padded[start:] for start in range(self.order))))
        levels = [sorted({gram[before - length : before] for gram in grams}) for length in range(self.order)]
        places = {context: place for place, context in enumerate(context for level in levels for context in level)}
        if len(places) * (self.boundary + 1) > MOST:
            raise UserError(
                f"objective.ngram={self.order}: the training texts have {len(places):,} contexts of "
                f"{self.boundary:,} labels, too many for a table; give a lower order"
            )
        counts = torch.zeros(len(places), self.boundary + 1, dtype=torch.float64)
        for gram, count in grams.items():
            for start in range(self.order):
                counts[places[gram[start:before]], gram[before]] += count
        kinds = (counts > 0).sum(1, keepdim=True)
        totals = counts.sum(1, keepdim=True) + kinds
        shares = torch.full_like(counts, 1 / (self.boundary + 1))
        following = torch.zeros(counts.shape, dtype=torch.int32)
        for level in levels:
            here = torch.tensor([places[context] for context in level])
            shorter = torch.tensor([places[context[1:]] for context in level])
            for context in filter(None, level):
                following[places[context[:-1]], context[-1]] = places[context]
            following[here] = following[shorter]
            shares[here] = (counts[here] + kinds[here] * shares[shorter]) / totals[here]
        following[:, self.boundary] = places[(self.boundary,) * before]
        self.logs, self.following = shares.log().float(), following


def make_room(ngram: NGram, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take tables of the saved size before these are loaded."""
    for name, table in ngram.named_buffers():
        if prefix + name in state:
            setattr(ngram, name, table.new_empty(state[prefix + name].shape))
